package volumes

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/knarr-dev/knarr/sched"
)

// choose finds the smallest volume that will do for the claim on n; one that
// has been set aside for the claim comes first, and nothing else will do then.
func (w *waiting) choose(n *corev1.Node, taken map[string]bool) (best *corev1.PersistentVolume) {
	for i := range w.volumes {
		c := &w.volumes[i]
		if taken[c.Name] || !w.suits(c.PersistentVolume) {
			continue
		}
		reaches := c.reaches(n)
		if preclaimed(c.PersistentVolume, w.PersistentVolumeClaim) {
			if !reaches {
				return nil
			}
			return c.PersistentVolume
		}
		if !reaches || c.Spec.ClaimRef != nil || c.Status.Phase != corev1.VolumeAvailable || !w.selects(c.PersistentVolume) {
			continue
		}
		if best == nil || capacity(c.PersistentVolume).Cmp(*capacity(best)) < 0 {
			best = c.PersistentVolume
		}
	}
	return best
}

// suits tells whether the volume is large enough and of the right sort.
func (w *waiting) suits(pv *corev1.PersistentVolume) bool {
	mode := func(m *corev1.PersistentVolumeMode) corev1.PersistentVolumeMode {
		if m == nil {
			return corev1.PersistentVolumeFilesystem
		}
		return *m
	}
	attributes := func(class *string) string {
		if class == nil {
			return ""
		}
		return *class
	}
	return pv.DeletionTimestamp == nil &&
		capacity(pv).Cmp(*size(w)) >= 0 &&
		mode(pv.Spec.VolumeMode) == mode(w.Spec.VolumeMode) &&
		attributes(pv.Spec.VolumeAttributesClassName) == attributes(w.Spec.VolumeAttributesClassName)
}

// selects tells whether a free volume is what the claim asks for.
func (w *waiting) selects(pv *corev1.PersistentVolume) bool {
	for _, m := range w.Spec.AccessModes {
		if !slices.Contains(pv.Spec.AccessModes, m) {
			return false
		}
	}
	return w.Spec.Selector == nil || sched.Selector(w.Spec.Selector).Matches(labels.Set(pv.Labels))
}

// preclaimed tells whether the volume is set aside for the claim.
func preclaimed(pv *corev1.PersistentVolume, c *corev1.PersistentVolumeClaim) bool {
	ref := pv.Spec.ClaimRef
	return ref != nil && ref.Name == c.Name && ref.Namespace == c.Namespace && (ref.UID == "" || ref.UID == c.UID)
}

func size(w *waiting) *resource.Quantity {
	q := w.Spec.Resources.Requests[corev1.ResourceStorage]
	return &q
}

func capacity(pv *corev1.PersistentVolume) *resource.Quantity {
	q := pv.Spec.Capacity[corev1.ResourceStorage]
	return &q
}

// allowed tells whether a class may have volumes made on n.
func allowed(terms []corev1.TopologySelectorTerm, n *corev1.Node) bool {
	for _, t := range terms {
		fits := len(t.MatchLabelExpressions) > 0
		for _, e := range t.MatchLabelExpressions {
			v, ok := n.Labels[e.Key]
			fits = fits && ok && slices.Contains(e.Values, v)
		}
		if fits {
			return true
		}
	}
	return len(terms) == 0
}

// holds tells whether there is room for the claim where n reaches it.
func holds(c *storagev1.CSIStorageCapacity, w *waiting, n *corev1.Node) bool {
	limit := c.MaximumVolumeSize
	if limit == nil {
		limit = c.Capacity
	}
	if limit == nil || limit.Cmp(*size(w)) < 0 || c.NodeTopology == nil {
		return false
	}
	selector, err := metav1.LabelSelectorAsSelector(c.NodeTopology)
	return err == nil && selector.Matches(labels.Set(n.Labels))
}
