package volumes

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/knarr-dev/knarr/sched"
)

// Zone is the plugin that keeps pods to the zones that the labels of their
// volumes name.
var Zone = sched.Plugin[[]area]{
	Name:     "VolumeZone",
	Prepare:  locate,
	Filter:   inArea,
	Wakes:    []sched.Change{sched.NodeAdded, sched.NodeLabels, sched.StorageChanged},
	Helps:    helps,
	Reads:    kinds,
	ReadsFor: claims,
}.Erase()

var elsewhere = sched.Verdict{Why: []string{"node(s) had no available volume zone"}, Final: true}

// current maps the labels that tell the zone and region of a volume to those
// that came after them.
var current = map[string]string{
	corev1.LabelTopologyZone:            corev1.LabelTopologyZone,
	corev1.LabelTopologyRegion:          corev1.LabelTopologyRegion,
	corev1.LabelFailureDomainBetaZone:   corev1.LabelTopologyZone,
	corev1.LabelFailureDomainBetaRegion: corev1.LabelTopologyRegion,
}

// An area is where a volume can be reached from.
type area struct {
	key    string
	values []string
}

func locate(p *sched.Pod, c *sched.Cluster) (areas []area, scope sched.Scope) {
	for i := range p.Spec.Volumes {
		v := p.Spec.Volumes[i].PersistentVolumeClaim
		if v == nil {
			continue
		}
		pv, no := volumeOf(c.Objects, p.Namespace, v.ClaimName)
		if no != "" {
			return nil, sched.Scope{No: no}
		}
		if pv == nil {
			continue
		}
		for key := range current {
			if value, ok := pv.Labels[key]; ok {
				areas = append(areas, area{key, strings.Split(value, "__")})
			}
		}
	}
	return areas, sched.Scope{Aside: len(areas) == 0}
}

// volumeOf finds the volume of a claim, nil where it has none because it
// waits for its pod, and why no node will do.
func volumeOf(o sched.Objects, ns, name string) (*corev1.PersistentVolume, string) {
	claim, ok := sched.Get[*corev1.PersistentVolumeClaim](o, ns, name)
	if !ok {
		return nil, notFound("persistentvolumeclaim", name)
	}
	if claim.Spec.VolumeName != "" {
		pv, ok := sched.Get[*corev1.PersistentVolume](o, "", claim.Spec.VolumeName)
		if !ok {
			return nil, notFound("persistentvolume", claim.Spec.VolumeName)
		}
		return pv, ""
	}
	className := claimClass(claim)
	if className == "" {
		return nil, "PersistentVolumeClaim had no pv name and storageClass name"
	}
	class, ok := sched.Get[*storagev1.StorageClass](o, "", className)
	switch {
	case !ok:
		return nil, notFound("storageclass.storage.k8s.io", className)
	case class.VolumeBindingMode == nil:
		return nil, fmt.Sprintf("VolumeBindingMode not set for StorageClass %q", className)
	case *class.VolumeBindingMode != storagev1.VolumeBindingWaitForFirstConsumer:
		return nil, "PersistentVolume had no name"
	}
	return nil, ""
}

func inArea(areas []area, _ *sched.Pod, n *sched.Node) sched.Verdict {
	placed := false
	for key := range current {
		_, ok := n.Labels[key]
		placed = placed || ok
	}
	if !placed {
		return sched.Fits
	}
	for _, a := range areas {
		v, ok := n.Labels[a.key]
		if !ok {
			v, ok = n.Labels[current[a.key]]
		}
		if !ok || !slices.Contains(a.values, v) {
			return elsewhere
		}
	}
	return sched.Fits
}
