package volumes

import (
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/knarr-dev/knarr/sched"
)

// Limits is the plugin that keeps nodes from having more volumes attached
// than their drivers can.
var Limits = sched.Plugin[*attachments]{
	Name:     "NodeVolumeLimits",
	Prepare:  count,
	Filter:   attachable,
	Wakes:    []sched.Change{sched.NodeAdded, sched.PodDeleted, sched.StorageChanged},
	Helps:    helps,
	Reads:    kinds,
	ReadsFor: claims,
}.Erase()

var tooMany = sched.Verdict{Why: []string{"node(s) exceed max volume count"}}

// A handle is a volume as its driver knows it.
type handle struct{ driver, id string }

// attachments is what the pod would have attached, and what others have.
type attachments struct {
	objects sched.Objects
	add     []handle
	nodes   map[string][]handle // what the attacher says is attached
}

func count(p *sched.Pod, c *sched.Cluster) (*attachments, sched.Scope) {
	if !claims(p) {
		return nil, sched.Scope{Aside: true}
	}
	a := &attachments{objects: c.Objects, nodes: map[string][]handle{}}
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		name := claimOf(p.Pod, v)
		if name == "" {
			continue
		}
		claim, ok := sched.Get[*corev1.PersistentVolumeClaim](c.Objects, p.Namespace, name)
		if !ok {
			continue // which is Binding's to say
		}
		if h, ok := a.handle(claim); ok {
			a.add = append(a.add, h)
		}
	}
	for va := range sched.In[*storagev1.VolumeAttachment](c.Objects, "") {
		if name := va.Spec.Source.PersistentVolumeName; name != nil {
			if pv, ok := sched.Get[*corev1.PersistentVolume](c.Objects, "", *name); ok && pv.Spec.CSI != nil {
				a.nodes[va.Spec.NodeName] = append(a.nodes[va.Spec.NodeName], handle{va.Spec.Attacher, pv.Spec.CSI.VolumeHandle})
			}
		}
	}
	return a, sched.Scope{Aside: len(a.add) == 0}
}

// handle names the volume of a claim. Where it has none yet it is one that no
// other claim has.
func (a *attachments) handle(claim *corev1.PersistentVolumeClaim) (h handle, ok bool) {
	if pv, ok := sched.Get[*corev1.PersistentVolume](a.objects, "", claim.Spec.VolumeName); ok {
		if pv.Spec.CSI == nil {
			return h, false
		}
		return handle{pv.Spec.CSI.Driver, pv.Spec.CSI.VolumeHandle}, true
	}
	class, ok := sched.Get[*storagev1.StorageClass](a.objects, "", claimClass(claim))
	if !ok {
		return h, false
	}
	return handle{class.Provisioner, "claim " + claim.Namespace + "/" + claim.Name}, true
}

func attachable(a *attachments, _ *sched.Pod, n *sched.Node) sched.Verdict {
	csi, ok := sched.Get[*storagev1.CSINode](a.objects, "", n.Name)
	if !ok {
		return sched.Fits
	}
	room := map[string]int{}
	for _, d := range csi.Spec.Drivers {
		if d.Allocatable != nil && d.Allocatable.Count != nil {
			room[d.Name] = int(*d.Allocatable.Count)
		}
	}
	if len(room) == 0 {
		return sched.Fits
	}
	has := map[handle]bool{}
	for _, p := range n.Pods {
		for i := range p.Spec.Volumes {
			if claim, ok := sched.Get[*corev1.PersistentVolumeClaim](a.objects, p.Namespace, claimOf(p.Pod, &p.Spec.Volumes[i])); ok {
				if h, ok := a.handle(claim); ok {
					has[h] = true
				}
			}
		}
	}
	want := map[handle]bool{}
	for _, h := range a.add {
		want[h] = !has[h]
	}
	for _, h := range a.nodes[n.Name] {
		has[h] = true
	}
	for h := range has {
		take(room, h)
	}
	for h, more := range want {
		if more && !take(room, h) {
			return tooMany
		}
	}
	return sched.Fits
}

// take takes one of what a driver can attach, and tells whether there was one
// left. Drivers without a limit are not in room.
func take(room map[string]int, h handle) bool {
	left, limited := room[h.driver]
	if limited {
		room[h.driver] = left - 1
	}
	return !limited || left > 0
}
