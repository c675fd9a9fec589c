//go:build e2e

package kills

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
)

// An event is what a watcher was told.
type event struct {
	kind    watch.EventType
	name    string
	uid     types.UID
	version string
	data    string
}

// A watcher follows all objects from a version on, and goes on where it was
// when a watch ends.
type watcher struct {
	client *kubernetes.Clientset
	woken  chan struct{}

	mu      sync.Mutex
	at      string
	events  []event
	watches int
	faults  []string
}

func (w *watcher) run(ctx context.Context) {
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	for ctx.Err() == nil {
		stream, err := w.client.CoreV1().ConfigMaps(space).Watch(ctx, metav1.ListOptions{ResourceVersion: w.version(), AllowWatchBookmarks: true})
		if err == nil {
			w.watches++
			w.follow(stream)
			stream.Stop()
			continue
		}
		if apierrors.IsResourceExpired(err) {
			w.mu.Lock()
			w.faults = append(w.faults, fmt.Sprintf("cannot go on at %s: %v", w.at, err))
			w.mu.Unlock()
			return
		}
		select {
		case <-retry.C:
		case <-ctx.Done():
		}
	}
}

func (w *watcher) version() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.at
}

func (w *watcher) follow(stream watch.Interface) {
	for e := range stream.ResultChan() {
		m, is := e.Object.(*corev1.ConfigMap)
		if !is {
			status := apierrors.FromObject(e.Object)
			if strings.Contains(status.Error(), "unable to decode an event from the watch stream") {
				return // the client's own words for a connection that broke
			}
			w.mu.Lock()
			w.faults = append(w.faults, fmt.Sprintf("watch told: %v", status))
			w.mu.Unlock()
			return
		}
		w.mu.Lock()
		if e.Type != watch.Bookmark {
			w.events = append(w.events, event{e.Type, m.Name, m.UID, m.ResourceVersion, m.Data["n"]})
		}
		if newer(w.at, m.ResourceVersion) {
			w.faults = append(w.faults, fmt.Sprintf("%s of %s is of %s, after %s", e.Type, m.Name, m.ResourceVersion, w.at))
		}
		w.at = m.ResourceVersion
		w.mu.Unlock()
		select {
		case w.woken <- struct{}{}:
		default:
		}
	}
}

// await waits until the watcher is at a version.
func (w *watcher) await(version string, limit time.Duration) bool {
	deadline := time.After(limit)
	for {
		w.mu.Lock()
		at := w.at
		w.mu.Unlock()
		if !newer(version, at) {
			return true
		}
		select {
		case <-w.woken:
		case <-deadline:
			return false
		}
	}
}

// newer tells whether version a is newer than b.
func newer(a, b string) bool {
	c, err := resourceversion.CompareResourceVersion(a, b)
	if err != nil {
		panic(err)
	}
	return c > 0
}
