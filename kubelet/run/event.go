package run

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/tools/reference"

	"github.com/knarr-dev/knarr/kubelet"
	"github.com/knarr-dev/knarr/kubelet/pod"
)

// Recorder returns what records events about the pods of a node, until ctx
// ends.
func Recorder(ctx context.Context, client kubernetes.Interface, node string) kubelet.Tell {
	b := record.NewBroadcaster(record.WithContext(ctx))
	b.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})
	r := b.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "kubelet", Host: node})
	context.AfterFunc(ctx, b.Shutdown)
	return func(p *corev1.Pod, container, kind, reason, message string) {
		ref, err := reference.GetReference(scheme.Scheme, p)
		if err != nil {
			return // a pod always has one
		}
		if container != "" {
			ref.FieldPath = fieldPath(p, container)
		}
		r.Event(ref, kind, reason, message)
	}
}

// fieldPath is where in a pod the container stands.
func fieldPath(p *corev1.Pod, name string) string {
	for _, c := range p.Spec.InitContainers {
		if c.Name == name {
			return "spec.initContainers{" + name + "}"
		}
	}
	for _, c := range p.Spec.EphemeralContainers {
		if c.Name == name {
			return "spec.ephemeralContainers{" + name + "}"
		}
	}
	return "spec.containers{" + name + "}"
}

func (w *worker) tell(p *corev1.Pod, c *corev1.Container, kind, reason, message string) {
	w.l.Tell(p, c.Name, kind, reason, message)
}

// condemn notes that a container's end has begun, and tells why.
func (w *worker) condemn(step pod.Step) {
	if _, begun := w.st.Killing[step.ID]; !begun {
		w.st.Killing[step.ID] = pod.Killing{Since: w.st.Now, Why: step.Why}
	}
	if w.told[step.ID] {
		return
	}
	w.told[step.ID] = true
	w.l.Tell(w.st.Pod, step.Container, corev1.EventTypeNormal, "Killing", w.why(step))
}

// why is what the event about a killing says.
func (w *worker) why(step pod.Step) string {
	kind, again := "Container", ""
	for _, c := range w.st.Pod.Spec.InitContainers {
		if c.Name == step.Container {
			kind = "Init container"
		}
	}
	if kind == "Container" && (step.Why == pod.Changed || pod.Restarts(w.st.Pod, step.Container)) {
		again = ", will be restarted"
	}
	switch step.Why {
	case pod.Liveness:
		return fmt.Sprintf("%s %s failed liveness probe%s", kind, step.Container, again)
	case pod.Startup:
		return fmt.Sprintf("%s %s failed startup probe%s", kind, step.Container, again)
	case pod.Changed:
		return fmt.Sprintf("%s %s definition changed%s", kind, step.Container, again)
	case pod.PostStart:
		return "FailedPostStartHook"
	case pod.Reset:
		return "killing"
	case pod.Lost:
		return fmt.Sprintf("%s is in %q state, try killing it before restart", kind, "unknown")
	}
	return "Stopping container " + step.Container
}

// report tells of a step that failed, as far as it is not told already.
func (w *worker) report(step pod.Step, f *kubelet.Failure) {
	if f.Told {
		return
	}
	p := w.st.Pod
	switch step.Op {
	case pod.Start:
		w.l.Tell(p, step.Container, corev1.EventTypeWarning, "Failed", "Error: "+f.Message)
	case pod.CreateSandbox:
		w.l.Tell(p, "", corev1.EventTypeWarning, f.Reason, f.Message)
	case pod.Prepare:
		reason := f.Reason
		if reason == string(step.Op) {
			reason = "FailedCreatePodContainer"
		}
		w.l.Tell(p, "", corev1.EventTypeWarning, reason, f.Message)
	case pod.Stop, pod.StopSandbox:
		w.l.Tell(p, "", corev1.EventTypeWarning, "FailedKillPod", "error killing pod: "+f.Message)
	default:
		w.l.Tell(p, "", corev1.EventTypeWarning, "FailedSync", f.Message)
	}
}
