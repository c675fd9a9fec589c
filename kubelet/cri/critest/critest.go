// Package critest has a container runtime in memory, and the tests that it and
// the real ones pass. Its containers are scripts in a few words of the shell,
// so that what is tried on it can be tried on a real runtime as well:
//
//	sh -c "trap 'exit 3' TERM; touch /ready; sleep 10 & wait; exit 1"
//
// It has no processes, network or files of its own and takes no time but what
// the scripts sleep, which testing/synctest makes none.
package critest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-dev/knarr/kubelet/cri"
)

// A Runtime is a container runtime in memory. Its zero value has no images.
type Runtime struct {
	// Before is asked before each operation, by the name of its method in
	// cri.Runtime and by what it is done to: an image, or a pod's or
	// container's name. Its error becomes the operation's. It may be nil.
	Before func(op, what string) error

	mu         sync.Mutex
	count      int
	boxes      map[string]*runtimeapi.PodSandboxStatus
	containers map[string]*container
	images     map[string]*runtimeapi.Image
	watchers   map[*watcher]bool
	calls      map[string]int
}

var _ cri.Runtime = (*Runtime)(nil)

type watcher struct {
	wake chan struct{}
	uids []string
}

type container struct {
	status *runtimeapi.ContainerStatus
	box    string
	config *runtimeapi.ContainerConfig
	files  map[string]bool // that the script has touched
	trap   *string         // for SIGTERM; nil is none
	signal chan bool       // true is to kill
	done   chan struct{}
}

// New returns a runtime that has the images.
func New(images ...string) *Runtime {
	r := &Runtime{
		boxes: map[string]*runtimeapi.PodSandboxStatus{}, containers: map[string]*container{},
		images: map[string]*runtimeapi.Image{}, watchers: map[*watcher]bool{}, calls: map[string]int{},
	}
	for _, name := range images {
		r.images[name] = image(name)
	}
	return r
}

func image(name string) *runtimeapi.Image {
	return &runtimeapi.Image{Id: "sha256:" + name, RepoTags: []string{name}, Spec: &runtimeapi.ImageSpec{Image: name}, Size: 1000}
}

// Calls is how often an operation has been called.
func (r *Runtime) Calls(op string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.calls[op]
}

// Crash ends a pod's sandbox as if its own process had died.
func (r *Runtime) Crash(uid string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, box := range r.boxes {
		if box.Metadata.Uid == uid {
			box.State = runtimeapi.PodSandboxState_SANDBOX_NOTREADY
			r.tell(uid)
		}
	}
}

// Forget loses all containers and sandboxes, as the reboot of a node may.
func (r *Runtime) Forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.containers {
		c.kill()
	}
	clear(r.boxes)
	clear(r.containers)
}

// enter counts and may refuse an operation.
func (r *Runtime) enter(op, what string) error {
	r.mu.Lock()
	r.calls[op]++
	before := r.Before
	r.mu.Unlock()
	if before == nil {
		return nil
	}
	return before(op, what)
}

// id makes a new id; the lock is held.
func (r *Runtime) id(kind string) string {
	r.count++
	return fmt.Sprintf("%s-%d", kind, r.count)
}

// tell wakes those who watch; the lock is held.
func (r *Runtime) tell(uid string) {
	for w := range r.watchers {
		w.uids = append(w.uids, uid)
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// Name implements cri.Watcher.
func (r *Runtime) Name(context.Context) (string, error) { return "memory", nil }

// Watch implements cri.Watcher.
func (r *Runtime) Watch(ctx context.Context, ready func(), see func(uid string)) error {
	w := &watcher{wake: make(chan struct{}, 1)}
	r.mu.Lock()
	r.watchers[w] = true
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.watchers, w)
		r.mu.Unlock()
	}()
	ready()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.wake:
		}
		r.mu.Lock()
		uids := w.uids
		w.uids = nil
		r.mu.Unlock()
		for _, uid := range uids {
			see(uid)
		}
	}
}

// RunSandbox implements cri.Sandboxes.
func (r *Runtime) RunSandbox(_ context.Context, config *runtimeapi.PodSandboxConfig, handler string) (string, error) {
	if err := r.enter("RunSandbox", config.Metadata.Name); err != nil {
		return "", err
	}
	if handler != "" {
		return "", fmt.Errorf("no runtime for %q is configured", handler)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	id := r.id("box")
	box := &runtimeapi.PodSandboxStatus{
		Id: id, Metadata: config.Metadata, State: runtimeapi.PodSandboxState_SANDBOX_READY, CreatedAt: time.Now().UnixNano(),
		Labels: config.Labels, Annotations: config.Annotations,
		Network: &runtimeapi.PodSandboxNetworkStatus{Ip: fmt.Sprintf("10.88.0.%d", r.count)},
		Linux:   &runtimeapi.LinuxPodSandboxStatus{Namespaces: &runtimeapi.Namespace{Options: config.GetLinux().GetSecurityContext().GetNamespaceOptions()}},
	}
	if box.Linux.Namespaces.Options.GetNetwork() == runtimeapi.NamespaceMode_NODE {
		box.Network = nil
	}
	r.boxes[id] = box
	r.tell(box.Metadata.Uid)
	return id, nil
}

// StopSandbox implements cri.Sandboxes.
func (r *Runtime) StopSandbox(_ context.Context, id string) error {
	if err := r.enter("StopSandbox", id); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	box := r.boxes[id]
	if box == nil {
		return nil
	}
	for _, c := range r.containers {
		if c.box == id {
			c.kill()
		}
	}
	box.State = runtimeapi.PodSandboxState_SANDBOX_NOTREADY
	r.tell(box.Metadata.Uid)
	return nil
}

// RemoveSandbox implements cri.Sandboxes.
func (r *Runtime) RemoveSandbox(ctx context.Context, id string) error {
	if err := r.enter("RemoveSandbox", id); err != nil {
		return err
	}
	r.mu.Lock()
	box := r.boxes[id]
	delete(r.boxes, id)
	var inside []string
	for cid, c := range r.containers {
		if c.box == id {
			inside = append(inside, cid)
		}
	}
	r.mu.Unlock()
	for _, cid := range inside {
		if err := r.RemoveContainer(ctx, cid); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if box != nil {
		r.tell(box.Metadata.Uid)
	}
	return nil
}

// ListSandboxes implements cri.Sandboxes.
func (r *Runtime) ListSandboxes(_ context.Context, uid string) ([]*runtimeapi.PodSandbox, error) {
	if err := r.enter("ListSandboxes", uid); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []*runtimeapi.PodSandbox
	for _, id := range slices.Sorted(maps.Keys(r.boxes)) {
		if b := r.boxes[id]; uid == "" || b.Labels[cri.UIDLabel] == uid {
			list = append(list, &runtimeapi.PodSandbox{Id: id, Metadata: b.Metadata, State: b.State, CreatedAt: b.CreatedAt, Labels: b.Labels, Annotations: b.Annotations})
		}
	}
	return list, nil
}

// SandboxStatus implements cri.Sandboxes.
func (r *Runtime) SandboxStatus(_ context.Context, id string) (*runtimeapi.PodSandboxStatus, error) {
	if err := r.enter("SandboxStatus", id); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.boxes[id]
	if b == nil {
		return nil, cri.ErrNotFound
	}
	return &runtimeapi.PodSandboxStatus{
		Id: b.Id, Metadata: b.Metadata, State: b.State, CreatedAt: b.CreatedAt,
		Network: b.Network, Linux: b.Linux, Labels: b.Labels, Annotations: b.Annotations,
	}, nil
}

// PullImage implements cri.Images. Any image can be pulled that Before allows.
func (r *Runtime) PullImage(_ context.Context, spec *runtimeapi.ImageSpec, _ *runtimeapi.AuthConfig, _ *runtimeapi.PodSandboxConfig) (string, error) {
	if err := r.enter("PullImage", spec.Image); err != nil {
		return "", err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.images[spec.Image] = image(spec.Image)
	return r.images[spec.Image].Id, nil
}

// ImageStatus implements cri.Images.
func (r *Runtime) ImageStatus(_ context.Context, spec *runtimeapi.ImageSpec) (*runtimeapi.Image, error) {
	if err := r.enter("ImageStatus", spec.Image); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.find(spec.Image), nil
}

func (r *Runtime) find(ref string) *runtimeapi.Image {
	for name, im := range r.images {
		if name == ref || im.Id == ref {
			return im
		}
	}
	return nil
}

// ListImages implements cri.Images.
func (r *Runtime) ListImages(context.Context) ([]*runtimeapi.Image, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Values(r.images)), nil
}

// RemoveImage implements cri.Images.
func (r *Runtime) RemoveImage(_ context.Context, spec *runtimeapi.ImageSpec) error {
	if err := r.enter("RemoveImage", spec.Image); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.images, func(name string, im *runtimeapi.Image) bool { return name == spec.Image || im.Id == spec.Image })
	return nil
}

// ImageFilesystems implements cri.Images.
func (r *Runtime) ImageFilesystems(context.Context) ([]*runtimeapi.FilesystemUsage, error) {
	return nil, errors.New("no file system")
}
