package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/etcd"
)

// bootstrapped are some of the objects that are there from the beginning.
var bootstrapped = []string{
	"/api/v1/namespaces/kube-system", "/api/v1/namespaces/default/services/kubernetes",
	"/apis/rbac.authorization.k8s.io/v1/clusterroles/cluster-admin", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/system:node-proxier",
	"/apis/scheduling.k8s.io/v1/priorityclasses/system-node-critical", "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/catch-all",
}

// start measures a first start with an etcd in the process, against an etcd
// alone in a process.
func (w *world) start(ctx context.Context) ([]row, error) {
	var samples [2][]sample
	for range w.runs {
		for i, run := range []func(ctx context.Context, dir string) (sample, error){w.coldStart, firstStart} {
			dir := filepath.Join(w.dir, "start")
			if err := os.Mkdir(dir, 0o700); err != nil {
				return nil, err
			}
			s, err := run(ctx, dir)
			if err := errors.Join(err, os.RemoveAll(dir)); err != nil {
				return nil, err
			}
			samples[i] = append(samples[i], s)
		}
	}
	of, limit := median(samples[0]), median(samples[1])
	text := func(s sample) string { return fmt.Sprintf("%.0f ms, %.0f ms", 1e3/s.rate, s.cpu*1e3) }
	return []row{{
		what: "cold start to ready, against etcd's", measured: text(of), limit: text(limit),
		ratio: limit.rate / of.rate, cpu: of.cpu / limit.cpu, wanted: wanted{most: 3},
	}}, nil
}

// coldStart starts an API server on nothing until it is ready.
func (w *world) coldStart(ctx context.Context, dir string) (s sample, err error) {
	e := &endpoint{}
	at, err := address()
	if err != nil {
		return s, err
	}
	e.url = "https://" + at
	if e.tls, err = w.credentials(); err != nil {
		return s, err
	}
	began := time.Now()
	if e.process, err = launch(dir, "first", w.apiserver(at, "--data-dir="+filepath.Join(dir, "etcd"))...); err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, e.stop()) }()
	if err := e.wait(ctx, func() error { return e.ready(ctx) }); err != nil {
		return s, err
	}
	took := time.Since(began)
	cpu, err := e.cpu()
	for _, path := range bootstrapped {
		_, ferr := e.fetch(ctx, call{path: path})
		err = errors.Join(err, ferr)
	}
	return sample{rate: 1 / took.Seconds(), cpu: cpu.Seconds()}, err
}

// firstStart starts an etcd on nothing until it has written.
func firstStart(ctx context.Context, dir string) (s sample, err error) {
	self, err := os.Executable()
	if err != nil {
		return s, err
	}
	began := time.Now()
	p, err := launch(dir, "first", self, "first-write", filepath.Join(dir, "etcd"))
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	err = p.wait(ctx, func() error {
		log, err := os.ReadFile(p.log)
		if err == nil && !bytes.Contains(log, []byte(wrote)) {
			err = errors.New("has not written")
		}
		return err
	})
	if err != nil {
		return s, err
	}
	took := time.Since(began)
	cpu, err := p.cpu()
	return sample{rate: 1 / took.Seconds(), cpu: cpu.Seconds()}, err
}

// wrote is what firstWrite says.
const wrote = "has written"

// firstWrite starts an etcd in this process, writes once and says so.
func firstWrite(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return errors.New("usage: bench first-write DIRECTORY")
	}
	s, err := etcd.Start(ctx, args[0])
	if err != nil {
		return err
	}
	defer s.Close()
	if _, err := s.Store().Commit(ctx, registry.Op{Key: "/registry/first", Value: []byte("write")}); err != nil {
		return err
	}
	fmt.Println(wrote)
	<-ctx.Done()
	return nil
}
