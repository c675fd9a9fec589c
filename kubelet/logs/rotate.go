package logs

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	gz  = ".gz"
	tmp = ".tmp"
	// Names of rotated files sort by age.
	stampFile = "20060102-150405"
)

// A Reopener makes the runtime open the log of a container anew.
type Reopener interface {
	Runtime
	ListContainers(context.Context, *runtimeapi.ListContainersRequest, ...grpc.CallOption) (*runtimeapi.ListContainersResponse, error)
	ReopenContainerLog(context.Context, *runtimeapi.ReopenContainerLogRequest, ...grpc.CallOption) (*runtimeapi.ReopenContainerLogResponse, error)
}

// A Rotator keeps logs from growing: a file of MaxSize bytes is put aside, and
// with the one being written at most MaxFiles are kept. All but the newest
// file put aside are compressed.
type Rotator struct {
	Dir      string // with a folder for each pod, as in /var/log/pods
	MaxSize  int64
	MaxFiles int
	Every    time.Duration
	Runtime  Reopener
}

// Run rotates until ctx ends. A look costs one stat for each log; the runtime
// is asked only about a log that has grown too large.
func (r *Rotator) Run(ctx context.Context) error {
	tick := time.NewTicker(r.Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := r.Look(ctx); err != nil {
			slog.WarnContext(ctx, "rotate container logs", "err", err)
		}
	}
}

// Look rotates every log that is too large now.
func (r *Rotator) Look(ctx context.Context) error {
	files, err := filepath.Glob(filepath.Join(r.Dir, "*", "*", "*.log"))
	if err != nil {
		return err
	}
	large := map[string]bool{}
	for _, path := range files {
		if info, err := os.Stat(path); err == nil && info.Size() >= r.MaxSize {
			large[path] = true
		}
	}
	if len(large) == 0 {
		return nil
	}
	writing, err := r.Runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{
		State: &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING},
	}})
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	var errs []error
	for _, c := range writing.GetContainers() {
		resp, err := r.Runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: c.Id})
		if path := resp.GetStatus().GetLogPath(); err == nil && large[path] {
			err = r.rotate(ctx, c.Id, path)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (r *Rotator) rotate(ctx context.Context, id, path string) error {
	old, err := tidy(path)
	if err != nil {
		return err
	}
	// Room for the file being written and for the one put aside now.
	for keep := max(0, r.MaxFiles-2); len(old) > keep; old = old[1:] {
		if err := os.Remove(old[0]); err != nil {
			return err
		}
	}
	for _, f := range old {
		if !strings.HasSuffix(f, gz) {
			if err := compress(f); err != nil {
				return fmt.Errorf("compress %s: %w", f, err)
			}
		}
	}
	aside := path + "." + time.Now().Format(stampFile)
	if err := os.Rename(path, aside); err != nil {
		return err
	}
	if _, err := r.Runtime.ReopenContainerLog(ctx, &runtimeapi.ReopenContainerLogRequest{ContainerId: id}); err != nil {
		return errors.Join(fmt.Errorf("reopen log of %s: %w", id, err), os.Rename(aside, path))
	}
	return nil
}

// tidy removes what an interrupted compression left and lists the files put
// aside, oldest first.
func tidy(path string) ([]string, error) {
	all, err := filepath.Glob(path + ".*")
	if err != nil {
		return nil, err
	}
	var keep []string
	for _, f := range all {
		if strings.HasSuffix(f, tmp) || slices.Contains(all, f+gz) {
			if err := os.Remove(f); err != nil {
				return nil, err
			}
			continue
		}
		keep = append(keep, f)
	}
	return keep, nil
}

// compress replaces a file by its compressed form, which has its whole
// content as soon as it has its name.
func compress(path string) error {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(path+tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, info.Mode())
	if err != nil {
		return err
	}
	z := gzip.NewWriter(out)
	_, err = io.Copy(z, in)
	if err := errors.Join(err, z.Close(), out.Close()); err != nil {
		return errors.Join(err, os.Remove(path+tmp))
	}
	if err := os.Rename(path+tmp, path+gz); err != nil {
		return err
	}
	return os.Remove(path)
}
