package node

import (
	"encoding/json"
	"fmt"
	"maps"
	"runtime"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

// attachDetach tells the controller manager that attaching volumes is its work.
const attachDetach = "volumes.kubernetes.io/controller-managed-attach-detach"

// Initial is the Node to register.
// contract: N-1
func Initial(s *Settings, f *Facts, now metav1.Time) *corev1.Node {
	hostname := s.Hostname
	if hostname == "" {
		hostname = s.Name
	}
	n := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: s.Name,
			Labels: map[string]string{
				corev1.LabelHostname:    hostname,
				corev1.LabelOSStable:    runtime.GOOS,
				corev1.LabelArchStable:  runtime.GOARCH,
				"beta.kubernetes.io/os": runtime.GOOS, "beta.kubernetes.io/arch": runtime.GOARCH,
			},
			Annotations: map[string]string{attachDetach: "true"},
		},
		Spec: corev1.NodeSpec{Taints: s.Taints, ProviderID: s.ProviderID},
	}
	maps.Copy(n.Labels, s.Labels)
	n.Status = *Status(&n.Status, s, f, now)
	return n
}

// standard are the labels that a kubelet keeps as they are meant to be; those
// that it was given otherwise are for registration only.
var standard = []string{
	corev1.LabelHostname, corev1.LabelOSStable, corev1.LabelArchStable, "beta.kubernetes.io/os", "beta.kubernetes.io/arch",
	corev1.LabelTopologyZone, corev1.LabelTopologyRegion, corev1.LabelFailureDomainBetaZone, corev1.LabelFailureDomainBetaRegion,
	corev1.LabelInstanceTypeStable, corev1.LabelInstanceType,
}

// reconciled is a Node that was there before, with the metadata that the
// kubelet answers for as in initial.
func reconciled(there, initial *corev1.Node) *corev1.Node {
	n := there.DeepCopy()
	if n.Labels == nil {
		n.Labels = map[string]string{}
	}
	for _, l := range standard {
		if v := initial.Labels[l]; v != "" {
			n.Labels[l] = v
		}
	}
	if n.Annotations == nil {
		n.Annotations = map[string]string{}
	}
	n.Annotations[attachDetach] = initial.Annotations[attachDetach]
	return n
}

// metadataPatch is what makes the metadata of old that of now, nil where it is.
func metadataPatch(old, now *corev1.Node) ([]byte, error) {
	if maps.Equal(old.Labels, now.Labels) && maps.Equal(old.Annotations, now.Annotations) {
		return nil, nil
	}
	return json.Marshal(map[string]any{"metadata": map[string]any{"labels": now.Labels, "annotations": now.Annotations}})
}

// statusPatch is what makes the status of old that of now, as a strategic
// merge. Addresses are replaced as a whole, since several may be of one type,
// which is what they would be merged by.
func statusPatch(old, now *corev1.Node) ([]byte, error) {
	was, is := &corev1.Node{Status: *old.Status.DeepCopy()}, &corev1.Node{Status: *now.Status.DeepCopy()}
	was.Status.Addresses, is.Status.Addresses = nil, nil
	a, err := json.Marshal(was)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(is)
	if err != nil {
		return nil, err
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(a, b, corev1.Node{})
	if err != nil {
		return nil, fmt.Errorf("compare statuses: %w", err)
	}
	var p struct {
		Status map[string]any `json:"status,omitempty"`
	}
	if err := json.Unmarshal(patch, &p); err != nil {
		return nil, err
	}
	if !slices.Equal(old.Status.Addresses, now.Status.Addresses) {
		addresses := []any{map[string]string{"$patch": "replace"}}
		for _, a := range now.Status.Addresses {
			addresses = append(addresses, a)
		}
		if p.Status == nil {
			p.Status = map[string]any{}
		}
		p.Status["addresses"] = addresses
	}
	return json.Marshal(p)
}
