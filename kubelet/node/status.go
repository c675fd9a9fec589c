package node

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Status is the status of a node as the facts have it. What it does not know
// of stays as it is in old: resources that others announce, conditions that
// others set.
func Status(old *corev1.NodeStatus, s *Settings, f *Facts, now metav1.Time) *corev1.NodeStatus {
	st := old.DeepCopy()
	st.Addresses = f.Addresses
	st.Capacity = capacity(st.Capacity, s, f)
	st.Allocatable = allocatable(st.Allocatable, st.Capacity, s, f)
	st.DaemonEndpoints.KubeletEndpoint.Port = s.Port
	st.NodeInfo = info(st.NodeInfo.ContainerRuntimeVersion, s, f)
	st.DeclaredFeatures = s.Declared
	st.VolumesInUse = f.VolumesInUse
	if f.Runtime != nil {
		st.Images = images(f.Images, s.MaxImages)
		st.RuntimeHandlers = handlers(f.Runtime.RuntimeHandlers)
		if f.Runtime.Features != nil {
			st.Features = &corev1.NodeFeatures{SupplementalGroupsPolicy: new(f.Runtime.Features.SupplementalGroupsPolicy)}
		}
	}
	for _, p := range []struct {
		of       corev1.NodeConditionType
		under    bool
		yes, no  string // reasons
		bad, fit string // messages
	}{
		{corev1.NodeMemoryPressure, f.Pressure.Memory, "KubeletHasInsufficientMemory", "KubeletHasSufficientMemory", "kubelet has insufficient memory available", "kubelet has sufficient memory available"},
		{corev1.NodeDiskPressure, f.Pressure.Disk, "KubeletHasDiskPressure", "KubeletHasNoDiskPressure", "kubelet has disk pressure", "kubelet has no disk pressure"},
		{corev1.NodePIDPressure, f.Pressure.PID, "KubeletHasInsufficientPID", "KubeletHasSufficientPID", "kubelet has insufficient PID available", "kubelet has sufficient PID available"},
	} {
		if p.under {
			set(st, now, corev1.NodeCondition{Type: p.of, Status: corev1.ConditionTrue, Reason: p.yes, Message: p.bad})
		} else {
			set(st, now, corev1.NodeCondition{Type: p.of, Status: corev1.ConditionFalse, Reason: p.no, Message: p.fit})
		}
	}
	set(st, now, ready(st.Capacity, f))
	return st
}

// ready is the condition Ready, without its times.
// contract: N-3
func ready(capacity corev1.ResourceList, f *Facts) corev1.NodeCondition {
	var errs []error
	if f.Runtime == nil {
		errs = append(errs, errors.New("container runtime is down"))
	}
	for _, c := range f.Runtime.GetStatus().GetConditions() {
		why := fmt.Sprintf("%s=%t reason:%s message:%s", c.Type, c.Status, c.Reason, c.Message)
		switch {
		case c.Status:
		case c.Type == runtimeapi.RuntimeReady:
			errs = append(errs, errors.New("container runtime not ready: "+why))
		case c.Type == runtimeapi.NetworkReady:
			errs = append(errs, errors.New("container runtime network not ready: "+why))
		}
	}
	for _, p := range f.Problems {
		errs = append(errs, errors.New(p))
	}
	var missing []string
	for _, r := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourcePods, corev1.ResourceEphemeralStorage} {
		if _, ok := capacity[r]; !ok {
			missing = append(missing, string(r))
		}
	}
	if len(missing) > 0 {
		errs = append(errs, errors.New("missing node capacity for resources: "+strings.Join(missing, ", ")))
	}
	if err := utilerrors.NewAggregate(errs); err != nil {
		return corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionFalse, Reason: "KubeletNotReady", Message: err.Error()}
	}
	return corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady", Message: "kubelet is posting ready status"}
}

// set puts c in its place, as seen now. A condition that keeps its status
// keeps the time of its last transition.
func set(st *corev1.NodeStatus, now metav1.Time, c corev1.NodeCondition) {
	c.LastHeartbeatTime, c.LastTransitionTime = now, now
	if old := condition(st, c.Type); old == nil {
		st.Conditions = append(st.Conditions, c)
	} else {
		if old.Status == c.Status {
			c.LastTransitionTime = old.LastTransitionTime
		}
		*old = c
	}
}

func condition(st *corev1.NodeStatus, t corev1.NodeConditionType) *corev1.NodeCondition {
	i := slices.IndexFunc(st.Conditions, func(c corev1.NodeCondition) bool { return c.Type == t })
	if i < 0 {
		return nil
	}
	return &st.Conditions[i]
}

// capacity is old with what the facts know of brought up to date.
// contract: N-1
func capacity(old corev1.ResourceList, s *Settings, f *Facts) corev1.ResourceList {
	c := corev1.ResourceList{}
	maps.Copy(c, old)
	maps.DeleteFunc(c, func(r corev1.ResourceName, _ resource.Quantity) bool { return hugePages(r) })
	maps.Copy(c, f.Capacity)
	maps.Copy(c, f.Devices)
	if f.Disk > 0 {
		c[corev1.ResourceEphemeralStorage] = *resource.NewQuantity(f.Disk, resource.BinarySI)
	}
	pods := s.MaxPods
	if s.PodsPerCore > 0 {
		pods = min(pods, s.PodsPerCore*c.Cpu().Value())
	}
	c[corev1.ResourcePods] = count(pods)
	return c
}

func hugePages(r corev1.ResourceName) bool {
	return strings.HasPrefix(string(r), corev1.ResourceHugePagesPrefix)
}

// allocatable is the part of the capacity that is for pods. What is set aside
// as huge pages is not to be had as memory.
func allocatable(old, capacity corev1.ResourceList, s *Settings, f *Facts) corev1.ResourceList {
	a := corev1.ResourceList{}
	for r, q := range old { // of what is not in the capacity, only what is no extended resource
		if !strings.Contains(string(r), "/") && !hugePages(r) {
			a[r] = q
		}
	}
	less := func(r corev1.ResourceName, q, by resource.Quantity) {
		if q = q.DeepCopy(); q.Cmp(by) < 0 {
			q.Set(0)
		} else {
			q.Sub(by)
		}
		a[r] = q
	}
	for r, q := range capacity {
		reserved := s.Reserved[r].DeepCopy()
		reserved.Add(evicted(r, q, s.HardEviction))
		less(r, q, reserved)
	}
	maps.Copy(a, f.AllocatableDevices)
	for r, q := range capacity {
		if hugePages(r) {
			less(corev1.ResourceMemory, a[corev1.ResourceMemory], q)
		}
	}
	return a
}

// evicted is how much of a resource is kept free by evicting pods.
func evicted(r corev1.ResourceName, capacity resource.Quantity, hard map[string]string) resource.Quantity {
	threshold := hard[map[corev1.ResourceName]string{
		corev1.ResourceMemory: "memory.available", corev1.ResourceEphemeralStorage: "nodefs.available",
	}[r]]
	if percent, is := strings.CutSuffix(threshold, "%"); is {
		// As upstream: a share has the precision of a float32.
		share, _ := strconv.ParseFloat(percent, 32)
		return *resource.NewQuantity(int64(float64(capacity.Value())*float64(float32(share)/100)), resource.BinarySI)
	}
	q, _ := resource.ParseQuantity(cmp.Or(threshold, "0"))
	return q
}

// contract: N-2
func info(version string, s *Settings, f *Facts) corev1.NodeSystemInfo {
	i := f.Info
	i.OperatingSystem, i.Architecture, i.KubeletVersion = runtime.GOOS, runtime.GOARCH, s.Version
	i.ContainerRuntimeVersion = version
	if v := f.Version; v != nil {
		i.ContainerRuntimeVersion = v.RuntimeName + "://" + v.RuntimeVersion
	}
	return i
}

// maxNames is how many names of an image are told.
const maxNames = 5

// images are the largest.
func images(list []*runtimeapi.Image, most int) (out []corev1.ContainerImage) {
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b *runtimeapi.Image) int {
		return cmp.Or(cmp.Compare(b.Size, a.Size), cmp.Compare(a.Id, b.Id))
	})
	if most >= 0 {
		list = list[:min(most, len(list))]
	}
	for _, i := range list {
		names := slices.Concat(i.RepoDigests, i.RepoTags)
		out = append(out, corev1.ContainerImage{Names: names[:min(maxNames, len(names))], SizeBytes: int64(i.Size)})
	}
	return out
}

func handlers(list []*runtimeapi.RuntimeHandler) (out []corev1.NodeRuntimeHandler) {
	for _, h := range list {
		out = append(out, corev1.NodeRuntimeHandler{Name: h.Name, Features: &corev1.NodeRuntimeHandlerFeatures{
			RecursiveReadOnlyMounts: new(h.GetFeatures().GetRecursiveReadOnlyMounts()),
			UserNamespaces:          new(h.GetFeatures().GetUserNamespaces()),
		}})
	}
	return out
}

// changed reports whether b says anything that a does not, but for when it was seen.
func changed(a, b *corev1.NodeStatus) bool {
	a, b = a.DeepCopy(), b.DeepCopy()
	for _, st := range []*corev1.NodeStatus{a, b} {
		for i := range st.Conditions {
			st.Conditions[i].LastHeartbeatTime = metav1.Time{}
		}
		slices.SortFunc(st.Conditions, func(x, y corev1.NodeCondition) int { return cmp.Compare(x.Type, y.Type) })
	}
	return !equality.Semantic.DeepEqual(a, b)
}

// events are what has happened between two statuses of a node.
// contract: N-5
func events(old, now *corev1.Node) (list []Event) {
	add := func(reason string) { list = append(list, nowStatus(now, reason)) }
	if was, is := old.Status.NodeInfo.BootID, now.Status.NodeInfo.BootID; was != "" && was != is {
		list = append(list, Event{corev1.EventTypeWarning, "Rebooted", fmt.Sprintf("Node %s has been rebooted, boot id: %s", now.Name, is)})
	}
	for _, c := range now.Status.Conditions {
		was := corev1.ConditionStatus("")
		if o := condition(&old.Status, c.Type); o != nil {
			was = o.Status
		}
		switch {
		case was == c.Status:
		case c.Type != corev1.NodeReady && strings.HasPrefix(c.Reason, "KubeletHas"):
			add("Node" + strings.TrimPrefix(c.Reason, "Kubelet"))
		case c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue:
			add("NodeReady")
		case c.Type == corev1.NodeReady && was == corev1.ConditionTrue:
			add("NodeNotReady")
		}
	}
	return list
}

// schedulable is what has happened to a node that has been cordoned, or is no longer.
func schedulable(n *corev1.Node) Event {
	reason := "NodeSchedulable"
	if n.Spec.Unschedulable {
		reason = "NodeNotSchedulable"
	}
	return nowStatus(n, reason)
}

func nowStatus(n *corev1.Node, reason string) Event {
	return Event{corev1.EventTypeNormal, reason, fmt.Sprintf("Node %s status is now: %s", n.Name, reason)}
}
