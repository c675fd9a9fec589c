// Package run is the node agent's loop: it brings what the API wants and what
// the runtime has together, asks package pod what comes next, and does it.
//
// One worker per pod does all that concerns the pod; nothing is shared between
// workers but the runtime's event stream and the writer of events. It decides
// nothing about a pod's life: that is package pod's. It keeps nothing on disk:
// what must survive a restart is asked of the API, the runtime and the hooks.
package run

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/knarr-dev/knarr/kubelet"
	"github.com/knarr-dev/knarr/kubelet/cri"
	"github.com/knarr-dev/knarr/kubelet/pod"
)

// A Config says which node the kubelet is and where it keeps its files. The
// fields that are about pods' surroundings are for Hooks.
type Config struct {
	NodeName string
	Root     string // for all files of pods, such as /var/lib/kubelet
	LogDir   string // for containers' logs, such as /var/log/pods
	LinkDir  string // for links to the logs, such as /var/log/containers; none where empty

	// Node is the node's object as the API has it; nil where that is not known.
	Node func() *corev1.Node
	// IPs are the node's addresses, the first one its main one.
	IPs func() []string
	// Tell records events; see Recorder.
	Tell kubelet.Tell
	// Pods is filled for others to read.
	Pods *Pods

	MaxBackoff time.Duration // between two runs of a container that fails; 5 minutes where zero
	// Relist is how often the runtime is asked what it has, lest an event was
	// lost; a minute where zero. A runtime without events is asked each second.
	Relist time.Duration
}

const defaultRelist = time.Minute

// Run brings the node's pods to what the API says until ctx ends. It leaves
// them running then: the next Run takes them over. It returns an error if it
// could not begin.
func Run(ctx context.Context, c Config, rt cri.Runtime, client kubernetes.Interface, hooks []kubelet.Hook) error {
	name, err := rt.Name(ctx)
	if err != nil {
		return fmt.Errorf("ask the runtime for its name: %w", err)
	}
	if c.Pods == nil {
		c.Pods = &Pods{}
	}
	if c.Tell == nil {
		c.Tell = func(*corev1.Pod, string, string, string, string) {}
	}
	l := &loop{
		Config: c, rt: rt, client: client, hooks: hooks, runtime: name,
		workers: map[podID]*worker{}, seen: map[podID]string{},
	}
	c.Pods.connect(func(uid podID, f func(*pod.State)) { l.post(uid, func(w *worker) { f(&w.st) }) })
	defer c.Pods.connect(nil)
	// Workers end when ctx does, and Run when they have.
	defer l.wait.Wait()
	if err := l.begin(ctx); err != nil {
		return err
	}
	l.watch(ctx)
	if err := ctx.Err(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	slog.InfoContext(ctx, "kubelet ends; its pods go on")
	return nil
}
