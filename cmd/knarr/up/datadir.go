package up

import (
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

// A Plan is what a cluster was made with and keeps: other values would not
// go with what is stored.
type Plan struct {
	Format       int    `json:"format"`
	Node         string `json:"node"`
	PodRange     string `json:"podRange"`
	ServiceRange string `json:"serviceRange"`
	EtcdServers  string `json:"etcdServers,omitempty"`
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

func (d *dir) file(name ...string) string { return filepath.Join(append([]string{d.path}, name...)...) }

// The files of a data directory that are not some part's own.
const (
	planFile  = "knarr.json"
	stateFile = "state.json"
	lockFile  = "lock"
	logFile   = "knarr.log"
)

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
		case lockFile, logFile, "lost+found":
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
	tmp := d.file("." + name + ".new")
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
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close() // nothing was written
		if errors.Is(err, unix.EWOULDBLOCK) {
			return errRunning
		}
		return fmt.Errorf("lock the data directory: %w", err)
	}
	d.lock = f
	return nil
}

// running reports whether some process has taken the directory.
func (d *dir) running() (bool, error) {
	err := d.take()
	if errors.Is(err, errRunning) {
		return true, nil
	}
	if err == nil {
		err = d.lock.Close()
		d.lock = nil
	}
	return false, err
}
