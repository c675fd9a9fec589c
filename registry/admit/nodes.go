package admit

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	resources "k8s.io/component-helpers/resource"
)

// taintNodes keeps pods off a new node until it is known to be ready.
func taintNodes() Plugin {
	taint := corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule}
	return Plugin{Name: "TaintNodesByCondition", Mutate: func(_ context.Context, _ World, r *Request) error {
		node, _ := r.Object.(*corev1.Node)
		if node == nil || r.Operation != Create || r.Sub != "" {
			return nil
		}
		if !slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.MatchTaint(&taint) }) {
			node.Spec.Taints = append(node.Spec.Taints, taint)
		}
		return nil
	}}
}

// topology are the labels of a node that pods on it get.
var topology = []string{corev1.LabelTopologyZone, corev1.LabelTopologyRegion}

// topologyLabels tells pods where they are, when they are bound to a node or
// come to be on one.
func topologyLabels() Plugin {
	return Plugin{Name: "PodTopologyLabels", Mutate: func(ctx context.Context, w World, r *Request) error {
		if r.Operation != Create || r.Kind.Group != "" || r.Kind.Plural != "pods" {
			return nil
		}
		node := ""
		switch obj := r.Object.(type) {
		case *corev1.Pod:
			node = obj.Spec.NodeName
		case *corev1.Binding:
			if obj.Target.Kind == "Node" {
				node = obj.Target.Name
			}
		}
		if node == "" {
			return nil
		}
		found, err := w.Known(ctx, schema.GroupResource{Resource: "nodes"}, "", node)
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		labels := r.Object.GetLabels()
		for _, key := range topology {
			if value, ok := found.GetLabels()[key]; ok {
				if labels == nil {
					labels = map[string]string{}
				}
				labels[key] = value
			}
		}
		r.Object.SetLabels(labels)
		return nil
	}}
}

// podResize refuses to give a pod more than its node has.
func podResize() Plugin {
	return Plugin{Name: "PodResizeValidator", Validate: func(ctx context.Context, w World, r *Request) error {
		pod, _ := r.Object.(*corev1.Pod)
		if pod == nil || r.Operation != Update || r.Sub != "resize" || pod.Spec.NodeName == "" || r.Old.GetGeneration() == pod.Generation {
			return nil
		}
		obj, err := w.Lookup(ctx, schema.GroupResource{Resource: "nodes"}, "", pod.Spec.NodeName)
		switch {
		case apierrors.IsNotFound(err):
			return forbid(r, "node %q not found", pod.Spec.NodeName)
		case err != nil:
			return forbid(r, "failed to get node %q: %w", pod.Spec.NodeName, err)
		}
		node := obj.(*corev1.Node)
		if os, ok := node.Labels[corev1.LabelOSStable]; ok && os != "linux" {
			return because(forbid(r, "pod resize is only supported on linux nodes, node %q is %q", node.Name, os), "UnsupportedPlatform")
		}
		if over := overflow(pod, node.Status.Allocatable); over != "" {
			return because(forbid(r, "node didn't have enough allocatable resources: %s", over), "NodeCapacity")
		}
		return nil
	}}
}

// because adds the cause of an error for programs to read.
func because(err *apierrors.StatusError, cause metav1.CauseType) error {
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{Type: cause})
	return err
}

// overflow tells of what a pod requests more than there is.
func overflow(pod *corev1.Pod, allocatable corev1.ResourceList) string {
	asked := resources.PodRequests(pod, resources.PodResourcesOptions{})
	var over []string
	if cpu := asked.Cpu(); cpu.Cmp(*allocatable.Cpu()) > 0 {
		over = append(over, fmt.Sprintf("cpu, requested: %d, allocatable: %d", cpu.MilliValue(), allocatable.Cpu().MilliValue()))
	}
	if mem := asked.Memory(); mem.Cmp(*allocatable.Memory()) > 0 {
		over = append(over, fmt.Sprintf("memory, requested: %d, allocatable: %d", mem.Value(), allocatable.Memory().Value()))
	}
	return strings.Join(over, "; ")
}
