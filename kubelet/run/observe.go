package run

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-dev/knarr/kubelet/cri"
	"github.com/knarr-dev/knarr/kubelet/pod"
)

// observe asks the runtime what it has of the pod. What will not change any
// more is asked only once.
func (w *worker) observe(ctx context.Context) error {
	boxes, err := w.l.rt.ListSandboxes(ctx, string(w.uid))
	if err != nil {
		return fmt.Errorf("list sandboxes: %w", err)
	}
	list, err := w.l.rt.ListContainers(ctx, string(w.uid))
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	slices.SortFunc(boxes, func(a, b *runtimeapi.PodSandbox) int {
		return cmp.Or(cmp.Compare(b.CreatedAt, a.CreatedAt), cmp.Compare(b.Id, a.Id))
	})
	before := w.st.Sandboxes
	w.st.Sandboxes = nil
	for i, b := range boxes {
		box, err := w.sandbox(ctx, b, i == 0, before)
		if err != nil {
			return err
		}
		w.st.Sandboxes = append(w.st.Sandboxes, box)
	}
	w.st.Containers = nil
	for _, c := range list {
		status, err := w.containerStatus(ctx, c)
		if errors.Is(err, cri.ErrNotFound) {
			continue // removed meanwhile
		} else if err != nil {
			return fmt.Errorf("status of container: %w", err)
		}
		w.st.Containers = append(w.st.Containers, observed(c, status))
	}
	slices.SortFunc(w.st.Containers, func(a, b pod.Container) int {
		return cmp.Or(cmp.Compare(b.Attempt, a.Attempt), cmp.Compare(b.ID, a.ID))
	})
	if w.l.IPs != nil {
		w.st.Host.IPs = w.l.IPs()
	}
	w.forgetEnded()
	return nil
}

// sandbox is a sandbox's state. Only the newest one's network matters, and
// that does not change while it is ready.
func (w *worker) sandbox(ctx context.Context, b *runtimeapi.PodSandbox, newest bool, before []pod.Sandbox) (pod.Sandbox, error) {
	box := pod.Sandbox{
		ID: b.Id, Attempt: b.GetMetadata().GetAttempt(), Stopped: w.stopped[b.Id],
		Ready: b.State == runtimeapi.PodSandboxState_SANDBOX_READY,
	}
	if !newest || !box.Ready {
		return box, nil
	}
	for _, old := range before {
		if old.ID == box.ID && old.Ready {
			box.HostNetwork, box.IPs = old.HostNetwork, old.IPs
			return box, nil
		}
	}
	st, err := w.l.rt.SandboxStatus(ctx, b.Id)
	if errors.Is(err, cri.ErrNotFound) {
		return pod.Sandbox{ID: b.Id, Stopped: true}, nil
	} else if err != nil {
		return box, fmt.Errorf("status of sandbox: %w", err)
	}
	box.HostNetwork = st.GetLinux().GetNamespaces().GetOptions().GetNetwork() == runtimeapi.NamespaceMode_NODE
	if ip := st.GetNetwork().GetIp(); ip != "" {
		box.IPs = append(box.IPs, ip)
	}
	for _, more := range st.GetNetwork().GetAdditionalIps() {
		box.IPs = append(box.IPs, more.GetIp())
	}
	return box, nil
}

func (w *worker) containerStatus(ctx context.Context, c *runtimeapi.Container) (*runtimeapi.ContainerStatus, error) {
	if st, ok := w.ended[c.Id]; ok {
		return st, nil
	}
	st, err := w.l.rt.ContainerStatus(ctx, c.Id)
	if err != nil {
		return nil, err
	}
	if st.State == runtimeapi.ContainerState_CONTAINER_EXITED {
		addMessage(st)
		w.ended[c.Id] = st
	}
	return st, nil
}

// forgetEnded drops what was kept about containers that are no more.
func (w *worker) forgetEnded() {
	have := map[string]bool{}
	for _, c := range w.st.Containers {
		have[c.ID] = true
		if c.Phase == pod.Exited {
			delete(w.st.Killing, c.ID)
		}
	}
	for id := range w.ended {
		if !have[id] {
			delete(w.ended, id)
		}
	}
	for id := range w.st.Killing {
		if !have[id] {
			delete(w.st.Killing, id)
		}
	}
}

var phases = map[runtimeapi.ContainerState]pod.Phase{
	runtimeapi.ContainerState_CONTAINER_CREATED: pod.Created,
	runtimeapi.ContainerState_CONTAINER_RUNNING: pod.Running,
	runtimeapi.ContainerState_CONTAINER_EXITED:  pod.Exited,
	runtimeapi.ContainerState_CONTAINER_UNKNOWN: pod.Unknown,
}

func observed(c *runtimeapi.Container, st *runtimeapi.ContainerStatus) pod.Container {
	o := pod.Container{
		ID: st.Id, Name: st.GetMetadata().GetName(), Sandbox: c.PodSandboxId, Phase: phases[st.State],
		Attempt: int32(st.GetMetadata().GetAttempt()), Hash: st.Annotations[hashNote],
		Started: time.Unix(0, st.StartedAt), Finished: time.Unix(0, st.FinishedAt), ExitCode: st.ExitCode, Reason: st.Reason, Message: st.Message,
		Image: st.GetImage().GetImage(), ImageID: st.ImageRef, Resources: enforced(st.GetResources().GetLinux()),
	}
	if u := st.GetUser().GetLinux(); u != nil {
		o.User = &corev1.ContainerUser{Linux: &corev1.LinuxContainerUser{UID: u.Uid, GID: u.Gid, SupplementalGroups: u.SupplementalGroups}}
	}
	return o
}

// enforced says in the API's terms what the runtime enforces.
func enforced(r *runtimeapi.LinuxContainerResources) *corev1.ResourceRequirements {
	if r == nil {
		return nil
	}
	out := &corev1.ResourceRequirements{Limits: corev1.ResourceList{}, Requests: corev1.ResourceList{}}
	if r.CpuPeriod > 0 && r.CpuQuota > 0 {
		out.Limits[corev1.ResourceCPU] = *resource.NewMilliQuantity(r.CpuQuota*1000/r.CpuPeriod, resource.DecimalSI)
	}
	if r.CpuShares > 0 {
		// Rounded up, as shares were rounded down from it.
		out.Requests[corev1.ResourceCPU] = *resource.NewMilliQuantity((r.CpuShares*1000+1023)/1024, resource.DecimalSI)
	}
	if r.MemoryLimitInBytes > 0 {
		out.Limits[corev1.ResourceMemory] = *resource.NewQuantity(r.MemoryLimitInBytes, resource.BinarySI)
	}
	return out
}
