package logs

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A watcher wakes who waits for a change in the directory of a log. A nil
// watcher wakes by time alone.
type watcher struct {
	f    *os.File
	stop func() bool
	log  string // the name of the log
	buf  [4 << 10]byte

	// left says that the writer of a log put aside has closed it.
	left bool
}

// What a wait can have seen besides a file that grew.
const (
	closed = unix.IN_CLOSE_WRITE
	moved  = unix.IN_CREATE | unix.IN_MOVE | unix.IN_DELETE
)

// watch watches until ctx ends, which wakes any wait at once.
func watch(ctx context.Context, path string) (*watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	w := &watcher{f: os.NewFile(uintptr(fd), "inotify"), log: filepath.Base(path)}
	if _, err := unix.InotifyAddWatch(fd, filepath.Dir(path), unix.IN_MODIFY|closed|moved); err != nil {
		_ = w.f.Close()
		return nil, os.NewSyscallError("inotify_add_watch", err)
	}
	w.stop = context.AfterFunc(ctx, func() { _ = w.f.Close() })
	return w, nil
}

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
		what, length := binary.NativeEndian.Uint32(b[4:]), int(binary.NativeEndian.Uint32(b[12:]))
		name := unix.ByteSliceToString(b[unix.SizeofInotifyEvent:][:length])
		seen |= what
		w.left = w.left || what&closed != 0 && aside(w.log, name)
		b = b[unix.SizeofInotifyEvent+length:]
	}
	return seen
}

// aside reports whether name is that of a log put aside, not compressed yet.
func aside(log, name string) bool {
	return strings.HasPrefix(name, log+".") && !strings.HasSuffix(name, gz) && !strings.HasSuffix(name, tmp)
}

// waitLeft returns once the writer of the log put aside has closed it, or
// after d.
func (w *watcher) waitLeft(ctx context.Context, d time.Duration) {
	for end := time.Now().Add(d); ctx.Err() == nil && time.Now().Before(end); {
		if w != nil && w.left {
			w.left = false
			return
		}
		w.wait(ctx, time.Until(end))
	}
}

func (w *watcher) close() {
	w.stop()
	_ = w.f.Close()
}
