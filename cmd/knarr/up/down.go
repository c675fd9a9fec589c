package up

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/moby/sys/mountinfo"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/knarr-dev/knarr/cmd/knarr/parts"
	"github.com/knarr-dev/knarr/kubelet/cgroup"
	"github.com/knarr-dev/knarr/kubelet/containerd"
)

// stopPatience is how long the process of a cluster may take to end before
// it is made to.
const stopPatience = 20 * time.Second

func downCommand() *cobra.Command {
	var (
		path string
		keep bool
	)
	cmd := &cobra.Command{
		Use:   "down",
		Short: "End the cluster and leave nothing of it",
		Long:  "End the cluster: no process, mount, interface, namespace, cgroup, eBPF program or rule of it stays, and no file.",
		Args:  cobra.NoArgs,
	}
	cmd.Flags().StringVar(&path, "data-dir", defaultDir, "directory of the cluster")
	cmd.Flags().BoolVar(&keep, "keep-data", false, "keep the data directory, for a later up")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if os.Geteuid() != 0 {
			return errors.New("knarr down must run as root, as knarr up did")
		}
		d, err := existingDir(path)
		if err != nil {
			return err
		}
		if err := d.down(cmd.Context(), keep); err != nil {
			return err
		}
		kept := "; nothing of it is left"
		if keep {
			kept = "; its data stays in " + d.path
		}
		fmt.Fprintf(cmd.OutOrStdout(), "The cluster has ended%s.\n", kept)
		return nil
	}
	return cmd
}

// existingDir opens the directory of a cluster that there must be.
func existingDir(path string) (*dir, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no cluster in %s: `knarr up` starts one, --data-dir names another directory", path)
	}
	return openDir(path)
}

// down ends the cluster and takes away what it has made.
func (d *dir) down(ctx context.Context, keep bool) error {
	if err := d.stop(ctx); err != nil {
		return err
	}
	if err := d.take(); err != nil {
		return fmt.Errorf("%s: %w", d.path, err)
	}
	plan, err := d.plan()
	if err != nil {
		return err
	}
	if plan != nil {
		if err := d.clean(ctx, &plan.Options); err != nil {
			return err
		}
	}
	if keep {
		return errors.Join(os.RemoveAll(d.file(stateFile)), d.lock.Close())
	}
	return errors.Join(os.RemoveAll(d.path), d.lock.Close())
}

// clean takes away all but the data: pods, runtime, mounts, groups, networks
// and programs. It goes on after an error.
func (d *dir) clean(ctx context.Context, o *Options) error {
	errs := []error{d.endMembers(ctx)}
	if o.Runtime != "" {
		errs = append(errs, containerd.Empty(ctx, o.Runtime))
	} else if cfg, err := ownContainerd(d); err != nil {
		errs = append(errs, err)
	} else {
		errs = append(errs, containerd.Stop(ctx, *cfg))
	}
	groups, err := cgroup.New(d.cgroupRoot())
	if err == nil {
		err = groups.Remove(ctx)
	}
	errs = append(errs, err, removePodMounts(d.file("kubelet")), parts.RemoveProxy(ctx, d.proxy(o)))
	for _, dir := range []string{d.file("kubelet"), d.file("logs"), d.file("cni")} {
		errs = append(errs, os.RemoveAll(dir))
	}
	return errors.Join(errs...)
}

// stop ends the process of the cluster, if there is one.
func (d *dir) stop(ctx context.Context) error {
	pid, err := d.holder()
	if err != nil || pid == 0 {
		return err
	}
	return endProcess(ctx, pid)
}

// waitEnd waits for the end of a process.
func waitEnd(ctx context.Context, pidfd int) (bool, error) {
	const look = 100 * time.Millisecond // at ctx
	for deadline := time.Now().Add(stopPatience); time.Now().Before(deadline); {
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, int(look.Milliseconds()))
		if err != nil && !errors.Is(err, unix.EINTR) {
			return false, fmt.Errorf("wait for the process of the cluster: %w", err)
		}
		if n > 0 {
			return true, nil
		}
	}
	return false, nil
}

// removePodMounts unmounts the volumes of pods, the innermost first.
func removePodMounts(dir string) error {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return fmt.Errorf("list mounts: %w", err)
	}
	for _, m := range slices.Backward(mounts) {
		if err := unix.Unmount(m.Mountpoint, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("unmount %s: %w", filepath.Clean(m.Mountpoint), err)
		}
	}
	return nil
}
