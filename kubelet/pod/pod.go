// Package pod decides a pod's life: what is to be done next for it, and what
// its status is. Both are pure functions of a State, which says what is wanted,
// what the runtime has, and what is being done about it at a given moment.
//
// The package does nothing itself and keeps no clock; package run does the
// steps, observes, and asks again.
package pod

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// A State is all that is known of one pod at one moment.
type State struct {
	Now time.Time
	// Pod is as the API has it, its status included.
	Pod *corev1.Pod
	// Was is the status that was last worked out for the pod: what a restarted
	// kubelet has of it is the API's.
	Was  corev1.PodStatus
	Host Host

	// Gone says that the API no longer has the pod, or never had.
	Gone bool
	// End is why the kubelet itself ends the pod; nil where it does not.
	End *End
	// Since is when the pod began to end; zero where it did not yet.
	Since time.Time
	// Blocked says that an older pod of the name is not finished here.
	Blocked bool
	// Reported says that the API has the status as it last was worked out.
	Reported bool
	// Deleted says that the API was told that nothing of the pod is left.
	Deleted bool

	// Prepared says that the hooks have prepared the pod; Stale that they are
	// to do so again because something changed; Clean that they cleaned up.
	Prepared, Stale, Clean bool

	Sandboxes  []Sandbox   // newest first
	Containers []Container // newest first, of one name the one with the highest attempt
	Probes     map[string]Probes
	Killing    map[string]Killing // by container id
	Doing      map[string]Step    // what goes on now, by Step.Key
	Trouble    map[string]Trouble // by container name; the empty one is the pod's
	Backoff    map[string]Backoff // by container name
	// MaxBackoff caps the wait between two starts of a container that fails.
	MaxBackoff time.Duration
}

// A Host is the node, as the statuses of its pods tell it.
type Host struct {
	IPs     []string
	Runtime string // the prefix of container ids
}

// An End is why a pod ends that nobody deleted.
type End struct {
	Reason, Message string
	// Refused says that the node never took the pod.
	Refused bool
	// Disrupted says that the end is not the pod's own doing.
	Disrupted bool
	// Grace overrides the pod's own where it is not nil.
	Grace *time.Duration
}

// A Sandbox is one that the runtime has.
type Sandbox struct {
	ID      string
	Attempt uint32
	Ready   bool
	// HostNetwork says that it has no network of its own.
	HostNetwork bool
	IPs         []string
	// Stopped says that this kubelet has stopped it and let its network go.
	Stopped bool
}

// A Phase is where a container stands.
type Phase string

// The phases of a container.
const (
	Created Phase = "created"
	Running Phase = "running"
	Exited  Phase = "exited"
	Unknown Phase = "unknown"
)

// A Container is one that the runtime has.
type Container struct {
	ID, Name, Sandbox string
	Phase             Phase
	Attempt           int32 // how often the container was started before
	Hash              string

	Started, Finished time.Time
	ExitCode, Signal  int32
	Reason, Message   string

	Image, ImageID string
	Resources      *corev1.ResourceRequirements // as the runtime enforces them; nil where it does not say
	User           *corev1.ContainerUser
}

// A Result is what a probe says of a container.
type Result string

// The results; None is what a probe that has not decided yet says.
const (
	None Result = ""
	Good Result = "good"
	Bad  Result = "bad"
)

// Probes are the results of a container's probes.
type Probes struct{ Startup, Liveness, Readiness Result }

// A Killing is how far the end of a running container has come.
type Killing struct {
	Since time.Time
	Why   Why
	// Told says that the container was given the chance to prepare.
	Told bool
}

// A Trouble is why something did not work and when it is tried again.
type Trouble struct {
	Reason, Message string
	Until           time.Time
}

// A Backoff is how long to wait between two runs of a container.
type Backoff struct {
	Delay time.Duration
	At    time.Time // of the start that it was set at
	Hash  string
}

// spec is one container of a pod's specification, with its part in it.
type spec struct {
	*corev1.Container

	role role
}

type role int

const (
	initial role = iota
	sidecar
	main
	ephemeral
)

// specs lists the pod's containers in the order in which they start, but for
// ephemeral ones, which start whenever they are added.
func specs(p *corev1.Pod) (list []spec) {
	for i := range p.Spec.InitContainers {
		c := &p.Spec.InitContainers[i]
		r := initial
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			r = sidecar
		}
		list = append(list, spec{c, r})
	}
	for i := range p.Spec.Containers {
		list = append(list, spec{&p.Spec.Containers[i], main})
	}
	for i := range p.Spec.EphemeralContainers {
		c := corev1.Container(p.Spec.EphemeralContainers[i].EphemeralContainerCommon)
		list = append(list, spec{&c, ephemeral})
	}
	return list
}

// newest is the latest container of a name; nil where there is none.
func (s State) newest(name string) *Container {
	for i := range s.Containers {
		if s.Containers[i].Name == name {
			return &s.Containers[i]
		}
	}
	return nil
}

// here is like newest, for containers of the present sandbox only.
func (s State) here(name string) *Container {
	c := s.newest(name)
	if c == nil || len(s.Sandboxes) == 0 || c.Sandbox != s.Sandboxes[0].ID {
		return nil
	}
	return c
}

// running tells whether any container runs or is about to.
func (s State) running() bool {
	for _, c := range s.Containers {
		if c.alive() {
			return true
		}
	}
	_, starting := s.Doing[lane]
	return starting
}

// alive tells whether the container may have a process: one in an unknown
// phase is killed rather than run twice.
func (c *Container) alive() bool { return c.Phase == Running || c.Phase == Unknown }

// initialized tells whether a main container was made in the present sandbox,
// so that no init container need run any more.
func (s State) initialized() bool {
	for _, c := range s.Pod.Spec.Containers {
		if s.here(c.Name) != nil {
			return true
		}
	}
	return false
}

// started tells whether a running container has got past its start.
func (s State) started(c spec, run *Container) bool {
	if run == nil || run.Phase != Running || s.starting(c.Name) {
		return false
	}
	if c.StartupProbe == nil {
		return true
	}
	if r := s.Probes[run.ID].Startup; r != None {
		return r == Good
	}
	was := find(s.Was, c)
	return was != nil && was.ContainerID == s.id(run) && was.Started != nil && *was.Started
}

// starting tells whether a start of the container goes on, its hooks included.
func (s State) starting(name string) bool {
	step, ok := s.Doing[lane]
	return ok && step.Container == name
}

// id is a container's id as statuses have it.
func (s State) id(c *Container) string { return s.Host.Runtime + "://" + c.ID }
