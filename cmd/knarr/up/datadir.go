package up

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// format is the layout of a data directory. One of a later format is not
// touched.
const format = 1

// A Plan is what a cluster was made with.
type Plan struct {
	Format int `json:"format"`

	Options
}

// A State is how a cluster is at the moment, for status.
type State struct {
	PID        int       `json:"pid,omitempty"` // 0 where it is stopped
	Kubeconfig string    `json:"kubeconfig"`
	DataDir    string    `json:"dataDir"`
	Server     string    `json:"server"`
	Runtime    string    `json:"runtime"`
	Nodes      []Node    `json:"nodes"`
	Started    time.Time `json:"started,omitzero"`
	Log        string    `json:"log"`
	Problem    string    `json:"problem,omitempty"` // why nothing is known of the nodes
}

// A Node is one node of a State.
type Node struct {
	Name  string `json:"name"`
	Ready bool   `json:"ready"`
}

// A dir is the data directory of a cluster.
type dir struct {
	path string
	lock *os.File
}

// id tells the cluster from others on this machine, in the names of what has
// names outside of the directory: groups, interfaces, pins.
func (d *dir) id() string {
	if d.path == defaultDir {
		return "knarr"
	}
	sum := sha256.Sum256([]byte(d.path))
	return "knarr-" + hex.EncodeToString(sum[:3])
}

func (d *dir) file(name ...string) string { return filepath.Join(append([]string{d.path}, name...)...) }

// The files of a data directory that are not some part's own.
const (
	planFile  = "knarr.json"
	stateFile = "state.json"
	lockFile  = "lock"
	logFile   = "knarr.log"
	adminFile = "kubeconfig"
)

// maxLog is the size from which a log is put aside at a start.
const maxLog = 16 << 20

// openLog opens the log for what runs in the background. A large one is put
// aside first; of those one is kept.
func (d *dir) openLog() (*os.File, error) {
	path := d.file(logFile)
	if info, err := os.Stat(path); err == nil && info.Size() > maxLog {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, fmt.Errorf("put the log aside: %w", err)
		}
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	return f, nil
}

// openDir opens a data directory, and makes it where there is none. It is an
// error if it holds something else, or is of a later knarr.
func openDir(path string) (*dir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	d := &dir{path: path}
	entries, err := os.ReadDir(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := os.MkdirAll(path, 0o700); err != nil {
			return nil, fmt.Errorf("make the data directory: %w", err)
		}
		return d, nil
	case err != nil:
		return nil, fmt.Errorf("read the data directory: %w", err)
	case len(entries) == 0:
		return d, nil
	}
	plan, err := d.plan()
	if err != nil {
		return nil, err
	}
	if plan == nil && !onlyOurs(entries) {
		return nil, fmt.Errorf("%s is not empty and not a data directory of knarr: choose another with --data-dir, or empty it", path)
	}
	if plan != nil && plan.Format > format {
		return nil, fmt.Errorf("%s was written by a later knarr (format %d, this one knows %d): use that one, or another --data-dir", path, plan.Format, format)
	}
	return d, nil
}

// onlyOurs reports whether a directory holds nothing but what a start that
// failed early has left.
func onlyOurs(entries []os.DirEntry) bool {
	for _, e := range entries {
		switch e.Name() {
		case lockFile, logFile, logFile + ".1", "lost+found":
		default:
			return false
		}
	}
	return true
}

// plan reads what the cluster was made with, nil where there is none yet.
func (d *dir) plan() (*Plan, error) {
	var p Plan
	ok, err := d.read(planFile, &p)
	if err != nil || !ok {
		return nil, err
	}
	return &p, nil
}

func (d *dir) read(name string, into any) (bool, error) {
	data, err := os.ReadFile(d.file(name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return false, fmt.Errorf("read %s: %w", d.file(name), err)
	}
	return true, nil
}

// write replaces a file of the directory in one go.
func (d *dir) write(name string, what any) error {
	data, err := json.MarshalIndent(what, "", "  ")
	if err != nil {
		return err
	}
	tmp := d.file(name + ".new")
	if err := os.WriteFile(tmp, append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("write %s: %w", d.file(name), err)
	}
	return os.Rename(tmp, d.file(name))
}

// errRunning is the error of taking a directory whose cluster runs.
var errRunning = errors.New("the cluster runs already")

// take locks the directory for the process that runs the cluster, until it ends.
func (d *dir) take() error {
	f, err := os.OpenFile(d.file(lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("lock the data directory: %w", err)
	}
	// A lock of this kind knows its holder. It would end with any close of
	// the file in this process, so the process must not ask for the holder.
	err = unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
	if err == nil {
		d.lock = f
		return nil
	}
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		err = errRunning
	}
	return errors.Join(err, f.Close())
}

// holder is the process that has taken the directory, 0 where none has. It is
// not for that process itself to ask.
func (d *dir) holder() (pid int, err error) {
	f, err := os.OpenFile(d.file(lockFile), os.O_RDWR, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("look at the lock of the data directory: %w", err)
	}
	defer func() { _ = f.Close() }() // nothing was written
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock); err != nil {
		return 0, fmt.Errorf("look at the lock of the data directory: %w", err)
	}
	if lock.Type == unix.F_UNLCK {
		return 0, nil
	}
	return int(lock.Pid), nil
}
