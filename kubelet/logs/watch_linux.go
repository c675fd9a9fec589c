package logs

import (
	"context"
	"encoding/binary"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A watcher wakes who waits for a change in one directory. A nil watcher
// wakes by time alone.
type watcher struct {
	f    *os.File
	stop func() bool
	buf  [4 << 10]byte
}

// watch watches dir until ctx ends, which wakes any wait at once.
func watch(ctx context.Context, dir string) (*watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	w := &watcher{f: os.NewFile(uintptr(fd), "inotify")}
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MODIFY|closed|moved); err != nil {
		_ = w.f.Close()
		return nil, os.NewSyscallError("inotify_add_watch", err)
	}
	w.stop = context.AfterFunc(ctx, func() { _ = w.f.Close() })
	return w, nil
}

// What a wait can have seen besides a file that grew.
const (
	closed = unix.IN_CLOSE_WRITE
	moved  = unix.IN_CREATE | unix.IN_MOVE | unix.IN_DELETE
)

// wait returns after a change, or after d, and tells what has changed: bits of
// inotify, none where nothing did.
func (w *watcher) wait(ctx context.Context, d time.Duration) (seen uint32) {
	if w == nil {
		select {
		case <-ctx.Done():
		case <-time.After(min(d, unwatched)):
		}
		return 0
	}
	if err := w.f.SetReadDeadline(time.Now().Add(d)); err != nil {
		return 0
	}
	n, _ := w.f.Read(w.buf[:])
	for b := w.buf[:max(0, n)]; len(b) >= unix.SizeofInotifyEvent; {
		seen |= binary.NativeEndian.Uint32(b[4:])
		b = b[unix.SizeofInotifyEvent+binary.NativeEndian.Uint32(b[12:]):]
	}
	return seen
}

// waitClosed returns once a writer has closed a file, or after d.
func (w *watcher) waitClosed(ctx context.Context, d time.Duration) {
	for end := time.Now().Add(d); ctx.Err() == nil; {
		left := time.Until(end)
		if left <= 0 || w.wait(ctx, left)&closed != 0 {
			return
		}
	}
}

func (w *watcher) close() {
	w.stop()
	_ = w.f.Close()
}
