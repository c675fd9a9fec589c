package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/etcd"
)

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
	fmt.Println("written")
	<-ctx.Done()
	return nil
}
