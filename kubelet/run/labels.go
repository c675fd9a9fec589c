package run

import (
	"encoding/json"
	"maps"
	"path/filepath"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-dev/knarr/kubelet/cri"
	"github.com/knarr-dev/knarr/kubelet/pod"
)

// The labels and annotations of sandboxes and containers. They are upstream's,
// so that a kubelet of either kind can take over the pods of the other.
const (
	nameLabel      = "io.kubernetes.pod.name"
	namespaceLabel = "io.kubernetes.pod.namespace"
	containerLabel = "io.kubernetes.container.name"

	hashNote     = "io.kubernetes.container.hash"
	restartNote  = "io.kubernetes.container.restartCount"
	messageNote  = "io.kubernetes.container.terminationMessagePath"
	policyNote   = "io.kubernetes.container.terminationMessagePolicy"
	preStopNote  = "io.kubernetes.container.preStopHandler"
	portsNote    = "io.kubernetes.container.ports"
	graceNote    = "io.kubernetes.pod.terminationGracePeriod"
	deletionNote = "io.kubernetes.pod.deletionGracePeriod"
)

// logDir is where a pod's logs are.
func logDir(root string, p *corev1.Pod) string {
	return filepath.Join(root, p.Namespace+"_"+p.Name+"_"+string(p.UID))
}

// sandboxConfig is what of a sandbox depends on nothing but the pod. The hooks
// add the rest.
func sandboxConfig(p *corev1.Pod, logs string) *runtimeapi.PodSandboxConfig {
	labels := maps.Clone(p.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, podLabels(p))
	return &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: p.Name, Namespace: p.Namespace, Uid: string(p.UID)},
		LogDirectory: logDir(logs, p),
		Labels:       labels,
		Annotations:  p.Annotations,
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{
				Network: mode(p.Spec.HostNetwork), Pid: runtimeapi.NamespaceMode_CONTAINER,
			}},
		},
	}
}

func mode(host bool) runtimeapi.NamespaceMode {
	if host {
		return runtimeapi.NamespaceMode_NODE
	}
	return runtimeapi.NamespaceMode_POD
}

func podLabels(p *corev1.Pod) map[string]string {
	return map[string]string{nameLabel: p.Name, namespaceLabel: p.Namespace, cri.UIDLabel: string(p.UID)}
}

// containerConfig is what of a container depends on nothing but the pod.
func containerConfig(p *corev1.Pod, c *corev1.Container, attempt uint32) *runtimeapi.ContainerConfig {
	labels := podLabels(p)
	labels[containerLabel] = c.Name
	notes := map[string]string{
		hashNote: pod.Hash(c), restartNote: strconv.Itoa(int(attempt)),
		messageNote: c.TerminationMessagePath, policyNote: string(c.TerminationMessagePolicy),
	}
	if g := p.DeletionGracePeriodSeconds; g != nil {
		notes[deletionNote] = strconv.FormatInt(*g, 10)
	}
	if g := p.Spec.TerminationGracePeriodSeconds; g != nil {
		notes[graceNote] = strconv.FormatInt(*g, 10)
	}
	if c.Lifecycle != nil && c.Lifecycle.PreStop != nil {
		note(notes, preStopNote, c.Lifecycle.PreStop)
	}
	if len(c.Ports) > 0 {
		note(notes, portsNote, c.Ports)
	}
	return &runtimeapi.ContainerConfig{
		Metadata:   &runtimeapi.ContainerMetadata{Name: c.Name, Attempt: attempt},
		Image:      &runtimeapi.ImageSpec{Image: c.Image, UserSpecifiedImage: c.Image},
		Command:    c.Command,
		Args:       c.Args,
		WorkingDir: c.WorkingDir,
		Labels:     labels, Annotations: notes,
		LogPath: filepath.Join(c.Name, strconv.Itoa(int(attempt))+".log"),
		Stdin:   c.Stdin, StdinOnce: c.StdinOnce, Tty: c.TTY,
		Linux: &runtimeapi.LinuxContainerConfig{Resources: &runtimeapi.LinuxContainerResources{}, SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Network: mode(p.Spec.HostNetwork), Pid: runtimeapi.NamespaceMode_CONTAINER},
		}},
	}
}

func note(notes map[string]string, key string, v any) {
	if b, err := json.Marshal(v); err == nil {
		notes[key] = string(b)
	}
}

// byPod puts together what is known of the pods that the runtime has, well
// enough to end them: their names, grace periods and pre-stop hooks.
func byPod(boxes []*runtimeapi.PodSandbox, containers []*runtimeapi.Container) map[podID]*corev1.Pod {
	pods := map[podID]*corev1.Pod{}
	get := func(labels map[string]string) *corev1.Pod {
		uid := podID(labels[cri.UIDLabel])
		if uid == "" {
			return nil // not a kubelet's
		}
		if pods[uid] == nil {
			pods[uid] = &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: labels[nameLabel], Namespace: labels[namespaceLabel], UID: uid}}
		}
		return pods[uid]
	}
	for _, b := range boxes {
		get(b.Labels)
	}
	for _, c := range containers {
		p := get(c.Labels)
		if p == nil || slices.ContainsFunc(p.Spec.Containers, func(have corev1.Container) bool { return have.Name == c.Labels[containerLabel] }) {
			continue
		}
		if g, err := strconv.ParseInt(c.Annotations[graceNote], 10, 64); err == nil {
			p.Spec.TerminationGracePeriodSeconds = &g
		}
		spec := corev1.Container{Name: c.Labels[containerLabel], TerminationMessagePath: c.Annotations[messageNote]}
		var hook corev1.LifecycleHandler
		if json.Unmarshal([]byte(c.Annotations[preStopNote]), &hook) == nil {
			spec.Lifecycle = &corev1.Lifecycle{PreStop: &hook}
		}
		_ = json.Unmarshal([]byte(c.Annotations[portsNote]), &spec.Ports) // none where that is not there
		p.Spec.Containers = append(p.Spec.Containers, spec)
	}
	return pods
}
