package etcd_test

import (
	"testing"

	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/etcd"
	"github.com/knarr-dev/knarr/registry/storetest"
)

func start(t *testing.T, dir string) *etcd.Server {
	t.Helper()
	s, err := etcd.Start(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) registry.Store {
		s := start(t, t.TempDir())
		t.Cleanup(s.Close)
		return s.Store()
	})
}

// TestRestart holds that what was committed is there after a restart, at its revision.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir)
	rev, err := s.Store().Commit(t.Context(), registry.Op{Key: "/registry/x", Value: []byte("kept")})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	s = start(t, dir)
	defer s.Close()
	got, err := s.Store().Get(t.Context(), "/registry/x")
	if err != nil || string(got.Value) != "kept" || got.Rev != rev {
		t.Errorf("after restart %v: %v", got, err)
	}
}
