package up

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// minFree is how much room there must be in the data directory for a start.
const minFree = 512 << 20

// checkHost finds what would keep a cluster from starting before anything is
// started.
func checkHost(dir string) error {
	if os.Geteuid() != 0 {
		return errors.New("knarr up must run as root: containers, mounts and networks need it (try sudo)")
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("look at the disk of %s: %w", dir, err)
	}
	if free := fs.Bavail * uint64(fs.Bsize); free < minFree {
		return fmt.Errorf("the disk of %s has %d MiB left and %d are needed: free some, or choose another with --data-dir", dir, free>>20, minFree>>20)
	}
	return nil
}

// listen opens a port. One that is taken is an error that says by which flag
// to choose another.
func listen(ctx context.Context, address, flag string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s is taken by another process: end it, or choose another port with --%s", address, flag)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return l, nil
}
