//go:build integration

// Package livetest runs the controllers against a real API server, which must
// have no other controllers, and compares what they make with what stock
// controllers make of the same.
package livetest

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/knarr-dev/knarr/ctrl/all"
	"github.com/knarr-dev/knarr/ctrl/engine"
	"github.com/knarr-dev/knarr/ctrl/engine/sweep"
)

// config is the server under test; without one the test is skipped, loudly.
func config(t *testing.T, env string) *rest.Config {
	path := os.Getenv(env)
	if path == "" {
		t.Skipf("SKIPPED: %s names no kubeconfig of an API server to test against", env)
	}
	c, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	c.QPS = -1
	return c
}

func start(t *testing.T, c *rest.Config) (*kubernetes.Clientset, *prometheus.Registry) {
	client, err := kubernetes.NewForConfig(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	reg := prometheus.NewRegistry()
	go func() {
		done <- engine.Run(ctx, engine.Config{
			Controllers: all.List(all.Options{RootCA: func() string { return "PEM" }}),
			Loops: []engine.Loop{sweep.Loop(sweep.Config{
				Metadata:  func(string) metadata.Interface { return metadata.NewForConfigOrDie(c) },
				Discovery: client.Discovery(), Garbage: true, Namespaces: true,
			})},
			Informers: informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(engine.Trim)),
			Client:    func(string) kubernetes.Interface { return client },
			Metrics:   reg,
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return client, reg
}

func TestHold(t *testing.T) {
	_, _ = start(t, config(t, "KNARR_TEST_KUBECONFIG"))
	<-time.After(time.Hour)
}
