// Package kubelet is the vocabulary of the node agent: the moments of a pod's
// life and who may take part in them.
//
// What comes next in a pod's life is decided by package pod; package run does
// it and calls the hooks on the way. Each subsystem is a package of its own
// that offers a Hook. They do not know one another: what two of them need is
// passed to them by run.
package kubelet

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// A Hook takes part in a pod's life; a func left nil does not.
type Hook struct {
	Name string

	// Admit may refuse a pod that is new to the node, with a *Refusal. The
	// others are the pods that hold something of the node already.
	Admit func(p *corev1.Pod, others []*corev1.Pod) error

	// Prepare makes ready what the pod's containers share and fills in the
	// sandbox's configuration. It comes before the sandbox, again whenever the
	// pod or an object that it refers to has changed, and for every pod that a
	// starting kubelet finds: twice must be as good as once.
	Prepare func(context.Context, *Sandbox) error

	// BeforeStart fills in the configuration of a container to be made. An
	// error that wraps a *Failure chooses the reason that the status shows.
	BeforeStart func(context.Context, *Container) error

	// AfterStart comes once after each start; its error has the container killed.
	AfterStart func(context.Context, *Container) error

	// Running is told of each running container once, also of those that a
	// starting kubelet finds. The context ends when the container does.
	Running func(context.Context, *Container)

	// BeforeKill comes before the stop signal. The context ends with the grace
	// period, which what it does is taken from.
	BeforeKill func(context.Context, *Container) error

	// Cleanup undoes Prepare when nothing of the pod runs any more. It is safe
	// to call twice, and without Prepare.
	Cleanup func(context.Context, types.UID) error

	// Observe adds to the status. It is pure and cheap: it runs often.
	Observe func(*corev1.Pod, *corev1.PodStatus)
}

// A Sandbox is a pod's sandbox before it is made.
type Sandbox struct {
	Pod     *corev1.Pod
	Config  *runtimeapi.PodSandboxConfig
	Handler string // of the pod's RuntimeClass; empty is the runtime's own
}

// A Container is one container of a pod, about to be made or made.
type Container struct {
	// Pod has the status that the kubelet knows, which the API may not have yet.
	Pod *corev1.Pod
	// Spec is that of the container, the common part of an ephemeral one.
	Spec *corev1.Container
	// Target names the container whose processes an ephemeral one shares, and
	// TargetID is that one's id, empty where it does not run.
	Target, TargetID string
	Sandbox          *Sandbox
	Config           *runtimeapi.ContainerConfig // for BeforeStart and AfterStart only
	Image            *runtimeapi.Image           // as the runtime has it; for BeforeStart only, and there once a hook has seen to it
	ID               string                      // empty before it is made
	Started          time.Time                   // for Running only
	// Ending is closed when the pod begins to end.
	Ending <-chan struct{}
}

// A Refusal is why the node will not run a pod. It ends the pod's life.
type Refusal struct {
	Reason  string
	Message string
}

func (r *Refusal) Error() string { return r.Reason + ": " + r.Message }

// A Failure is why a container does not start, as the pod's status tells it.
type Failure struct {
	Reason  string
	Message string
	// Told says that an event about it has been sent already.
	Told bool
	// After is when to try again; zero leaves that to the caller.
	After time.Duration
	Err   error // what it wraps; may be nil
}

func (f *Failure) Error() string { return fmt.Sprintf("%s: %s", f.Reason, f.Message) }

func (f *Failure) Unwrap() error { return f.Err }

// Tell records an event about a pod, or about one of its containers where the
// name is not empty. It does not wait.
type Tell func(p *corev1.Pod, container, kind, reason, message string)
