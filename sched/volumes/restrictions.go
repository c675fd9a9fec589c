package volumes

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-dev/knarr/sched"
)

// Restrictions is the plugin that keeps pods apart that cannot share a volume.
var Restrictions = sched.Plugin[restricted]{
	Name:     "VolumeRestrictions",
	Prepare:  restrict,
	Filter:   shareable,
	Moved:    remaining,
	Wakes:    []sched.Change{sched.NodeAdded, sched.PodDeleted, sched.StorageChanged},
	Helps:    helps,
	Reads:    kinds,
	ReadsFor: claims,
}.Erase()

var (
	diskTaken = sched.Verdict{Why: []string{"node(s) had no available disk"}}
	podTaken  = sched.Verdict{Why: []string{"node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod"}}
)

// restricted is what others may have taken.
type restricted struct {
	single []string // claims that only one pod may use
	users  int      // pods that use one of them
	disks  []*corev1.Volume
}

func restrict(p *sched.Pod, c *sched.Cluster) (r restricted, scope sched.Scope) {
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		if v.GCEPersistentDisk != nil || v.AWSElasticBlockStore != nil || v.RBD != nil || v.ISCSI != nil {
			r.disks = append(r.disks, v)
		}
		if v.PersistentVolumeClaim == nil {
			continue
		}
		name := v.PersistentVolumeClaim.ClaimName
		claim, ok := sched.Get[*corev1.PersistentVolumeClaim](c.Objects, p.Namespace, name)
		if !ok {
			return r, sched.Scope{No: notFound("persistentvolumeclaim", name)}
		}
		if slices.Contains(claim.Spec.AccessModes, corev1.ReadWriteOncePod) {
			r.single = append(r.single, name)
		}
	}
	if len(r.single) > 0 {
		for _, n := range c.Nodes() {
			r.users += r.among(n.Pods, p)
		}
	}
	scope.Aside = len(r.disks) == 0 && r.users == 0
	return r, scope
}

func (r *restricted) among(pods []*sched.Pod, p *sched.Pod) (users int) {
	for _, other := range pods {
		if other.Namespace != p.Namespace {
			continue
		}
		for i := range other.Spec.Volumes {
			if v := other.Spec.Volumes[i].PersistentVolumeClaim; v != nil && slices.Contains(r.single, v.ClaimName) {
				users++
			}
		}
	}
	return users
}

func remaining(r restricted, p *sched.Pod, _ *sched.Node, left, joined []*sched.Pod) restricted {
	r.users += r.among(joined, p) - r.among(left, p)
	return r
}

func shareable(r restricted, _ *sched.Pod, n *sched.Node) sched.Verdict {
	for _, v := range r.disks {
		for _, p := range n.Pods {
			for i := range p.Spec.Volumes {
				if clash(v, &p.Spec.Volumes[i]) {
					return diskTaken
				}
			}
		}
	}
	if r.users > 0 {
		return podTaken
	}
	return sched.Fits
}

// clash tells whether two volumes are one disk that cannot be attached twice.
func clash(a, b *corev1.Volume) bool {
	switch {
	case a.GCEPersistentDisk != nil && b.GCEPersistentDisk != nil:
		return a.GCEPersistentDisk.PDName == b.GCEPersistentDisk.PDName && (!a.GCEPersistentDisk.ReadOnly || !b.GCEPersistentDisk.ReadOnly)
	case a.AWSElasticBlockStore != nil && b.AWSElasticBlockStore != nil:
		return a.AWSElasticBlockStore.VolumeID == b.AWSElasticBlockStore.VolumeID
	case a.ISCSI != nil && b.ISCSI != nil:
		return a.ISCSI.IQN == b.ISCSI.IQN && (!a.ISCSI.ReadOnly || !b.ISCSI.ReadOnly)
	case a.RBD != nil && b.RBD != nil:
		shared := slices.ContainsFunc(a.RBD.CephMonitors, func(m string) bool { return slices.Contains(b.RBD.CephMonitors, m) })
		return shared && a.RBD.RBDPool == b.RBD.RBDPool && a.RBD.RBDImage == b.RBD.RBDImage && (!a.RBD.ReadOnly || !b.RBD.ReadOnly)
	}
	return false
}
