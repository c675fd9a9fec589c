package logs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"
)

// A follower prints a log file from where it is told to the end, and, where
// alive is set, on through every rotation until the container has ended.
type follower struct {
	*output

	path  string
	tail  *int64
	alive func(context.Context) bool

	file *os.File
	rd   *bufio.Reader
	part []byte // a line that the runtime has not finished writing
}

// Waits of a follower. Every change of a log wakes it, so these are for what
// makes no change: a runtime writes down the end of a container a moment after
// it closes the log, or does not close it at all.
const (
	afterClose = 20 * time.Millisecond
	soon       = 50 // times that afterClose is waited
	afterMove  = time.Second
	safetyNet  = 5 * time.Second
	unwatched  = time.Second // where the kernel has no inotify instance left
)

func (f *follower) run(ctx context.Context) error {
	if err := f.open(f.path); err != nil {
		return err
	}
	defer func() { _ = f.file.Close() }() // whichever it is by then
	if err := f.skip(); err != nil {
		return err
	}
	if f.alive == nil {
		err := f.drain()
		if err == nil && len(f.part) > 0 {
			err = f.print(f.part)
		}
		return errors.Join(err, f.flush())
	}
	w, err := watch(ctx, f.path)
	if err != nil {
		slog.DebugContext(ctx, "follow a log by looking at it every second", "path", f.path, "err", err)
		return f.follow(ctx, nil)
	}
	defer w.close()
	return f.follow(ctx, w)
}

// follow is a loop of reading all there is and waiting for more. Whether the
// container lives is asked before the last read, never after it.
func (f *follower) follow(ctx context.Context, w *watcher) error {
	left := 0
	for grew := false; ; {
		alive := grew || f.alive(ctx)
		if err := errors.Join(f.drain(), f.flush()); err != nil {
			return err
		}
		if !grew {
			next, err := f.rotated()
			if err != nil {
				return err
			}
			if next != "" {
				// The runtime closes the old file only after it has opened the new.
				w.waitLeft(ctx, afterMove)
				if err := errors.Join(f.drain(), f.open(next)); err != nil {
					return err
				}
				continue
			}
		}
		if !alive || ctx.Err() != nil {
			return nil //nolint:nilerr // a client that leaves has seen enough
		}
		patience := safetyNet
		if left > 0 {
			left--
			patience = afterClose
		}
		seen := w.wait(ctx, patience)
		if seen&closed != 0 {
			left = soon
		}
		grew = seen != 0 && seen&(closed|moved) == 0
	}
}

func (f *follower) open(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	if f.file != nil {
		_ = f.file.Close() // it was only read
	}
	f.file, f.rd, f.part = file, bufio.NewReaderSize(file, blockSize), nil
	return nil
}

// skip goes to the first of the lines that were asked for.
func (f *follower) skip() error {
	if f.tail == nil {
		return nil
	}
	info, err := f.file.Stat()
	if err != nil {
		return err
	}
	at, err := tailOffset(f.file, info.Size(), *f.tail)
	if err != nil {
		return fmt.Errorf("find the last %d lines: %w", *f.tail, err)
	}
	_, err = f.file.Seek(at, io.SeekStart)
	return err
}

// drain prints all whole lines up to the end of the file.
func (f *follower) drain() error {
	for {
		raw, err := f.rd.ReadSlice('\n')
		if err != nil || len(f.part) > 0 {
			f.part = append(f.part, raw...)
			raw = f.part
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		f.part = f.part[:0]
		if err := f.print(raw); err != nil {
			return err
		}
	}
}

// print passes over what is no line of a log, as a crash can leave.
func (f *follower) print(raw []byte) error {
	l, err := parse(raw)
	if err != nil {
		return nil //nolint:nilerr // one broken line does not end the log
	}
	return f.line(l)
}

// rotated is the file that continues the open one, empty where that is still
// the newest. Rotated files sort by age; those already compressed are lost to
// a client so far behind.
func (f *follower) rotated() (string, error) {
	mine, err := f.file.Stat()
	if err != nil {
		return "", err
	}
	now, err := os.Stat(f.path)
	if err != nil || os.SameFile(mine, now) {
		return "", nil //nolint:nilerr // between the rename and the new file there is none
	}
	old, err := filepath.Glob(f.path + ".*")
	if err != nil {
		return "", err
	}
	for _, path := range old {
		if !aside(filepath.Base(f.path), filepath.Base(path)) {
			continue
		}
		if info, err := os.Stat(path); err == nil && !os.SameFile(mine, info) && info.ModTime().After(mine.ModTime()) {
			return path, nil
		}
	}
	return f.path, nil
}
