package volumes

import (
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-dev/knarr/sched"
)

// Binding is the plugin that keeps pods where their volumes are, and finds
// volumes for claims that have waited for their pod.
var Binding = sched.Plugin[*binding]{
	Name:     "VolumeBinding",
	Prepare:  collect,
	Filter:   reachable,
	Writes:   writes,
	Wakes:    []sched.Change{sched.NodeAdded, sched.NodeLabels, sched.StorageChanged},
	Helps:    helps,
	Reads:    kinds,
	ReadsFor: claims,
}.Erase()

// The annotations by which the parts that bind volumes talk to one another.
const (
	bindCompleted     = "pv.kubernetes.io/bind-completed"
	boundByController = "pv.kubernetes.io/bound-by-controller"
	selectedNode      = "volume.kubernetes.io/selected-node"

	noProvisioner = "kubernetes.io/no-provisioner"
)

const (
	notHere      = "node(s) didn't match PersistentVolume's node affinity"
	noVolume     = "node(s) didn't find available persistent volumes to bind"
	noSpace      = "node(s) did not have enough free storage"
	volumeIsGone = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
)

// binding is the claims of a pod.
type binding struct {
	objects sched.Objects
	bound   []candidate // volumes it has
	gone    bool        // one of them does not exist
	wait    []*waiting  // claims that wait for their pod, the smallest first
}

// waiting is a claim that gets its volume once its pod has a node.
type waiting struct {
	*corev1.PersistentVolumeClaim

	class   *storagev1.StorageClass
	volumes []candidate // that it could have
}

// A candidate is a volume, and the nodes from which it can be reached.
type candidate struct {
	*corev1.PersistentVolume

	nodes sched.NodeTerms
	bound bool // by nodes
}

func newCandidate(pv *corev1.PersistentVolume) candidate {
	if a := pv.Spec.NodeAffinity; a != nil && a.Required != nil {
		return candidate{pv, sched.CompileNodes(a.Required), true}
	}
	return candidate{pv, nil, false}
}

func (c *candidate) reaches(n *corev1.Node) bool { return !c.bound || c.nodes.Match(n) }

func collect(p *sched.Pod, c *sched.Cluster) (*binding, sched.Scope) {
	if !claims(p) {
		return nil, sched.Scope{Aside: true}
	}
	var all []*corev1.PersistentVolumeClaim
	for i := range p.Spec.Volumes {
		claim, no := usable(p, &p.Spec.Volumes[i], c.Objects)
		if no != "" {
			return nil, sched.Scope{No: no}
		}
		if claim != nil {
			all = append(all, claim)
		}
	}
	b := &binding{objects: c.Objects}
	for _, claim := range all {
		if claim.Spec.VolumeName != "" && metav1.HasAnnotation(claim.ObjectMeta, bindCompleted) {
			pv, ok := sched.Get[*corev1.PersistentVolume](c.Objects, "", claim.Spec.VolumeName)
			if !ok {
				b.gone = true
				continue
			}
			b.bound = append(b.bound, newCandidate(pv))
			continue
		}
		class, ok := sched.Get[*storagev1.StorageClass](c.Objects, "", claimClass(claim))
		if ok && class.VolumeBindingMode == nil {
			return nil, sched.Scope{Err: fmt.Errorf("VolumeBindingMode not set for StorageClass %q", class.Name)}
		}
		if !ok || *class.VolumeBindingMode != storagev1.VolumeBindingWaitForFirstConsumer || claim.Spec.VolumeName != "" {
			return nil, sched.Scope{No: "pod has unbound immediate PersistentVolumeClaims"}
		}
		b.wait = append(b.wait, &waiting{claim, class, b.candidates(class.Name)})
	}
	slices.SortStableFunc(b.wait, func(a, c *waiting) int { return size(a).Cmp(*size(c)) })
	return b, sched.Scope{}
}

// usable finds the claim of a volume, nil where it has none, and why it can
// be of no use on any node.
func usable(p *sched.Pod, v *corev1.Volume, o sched.Objects) (*corev1.PersistentVolumeClaim, string) {
	name := claimOf(p.Pod, v)
	if name == "" {
		return nil, ""
	}
	claim, ok := sched.Get[*corev1.PersistentVolumeClaim](o, p.Namespace, name)
	switch {
	case !ok && v.Ephemeral != nil:
		return nil, fmt.Sprintf("waiting for ephemeral volume controller to create the persistentvolumeclaim %q", name)
	case !ok:
		return nil, notFound("persistentvolumeclaim", name)
	case claim.Status.Phase == corev1.ClaimLost:
		return nil, fmt.Sprintf("persistentvolumeclaim %q bound to non-existent persistentvolume %q", name, claim.Spec.VolumeName)
	case claim.DeletionTimestamp != nil:
		return nil, fmt.Sprintf("persistentvolumeclaim %q is being deleted", name)
	case v.Ephemeral != nil && !owned(claim, p.Pod):
		return nil, notOwned(claim, p.Pod).Error()
	}
	return claim, ""
}

func notOwned(claim *corev1.PersistentVolumeClaim, p *corev1.Pod) error {
	return fmt.Errorf("PVC %s/%s was not created for pod %s/%s (pod is not owner)", claim.Namespace, claim.Name, p.Namespace, p.Name)
}

// candidates are the volumes of a class.
func (b *binding) candidates(class string) (out []candidate) {
	for pv := range sched.In[*corev1.PersistentVolume](b.objects, "") {
		if classOf(pv, pv.Spec.StorageClassName) == class {
			out = append(out, newCandidate(pv))
		}
	}
	return out
}

func reachable(b *binding, _ *sched.Pod, n *sched.Node) (v sched.Verdict) {
	v.Final = true
	if b.gone {
		v.Why = append(v.Why, volumeIsGone)
	} else if slices.ContainsFunc(b.bound, func(c candidate) bool { return !c.reaches(n.Node) }) {
		v.Why = append(v.Why, notHere)
	}
	if _, why := b.plan(n); why != "" {
		v.Why = append(v.Why, why)
	}
	if v.Fits() {
		return sched.Fits
	}
	return v
}

// A match is a claim with the volume chosen for it, nil where one is to be
// made.
type match struct {
	claim  *waiting
	volume *corev1.PersistentVolume
}

// plan chooses volumes for the waiting claims, and tells why there are none.
func (b *binding) plan(n *sched.Node) (out []match, why string) {
	taken := map[string]bool{}
	for _, w := range b.wait {
		if node, ok := w.Annotations[selectedNode]; ok {
			if node != n.Name {
				return nil, noVolume
			}
			out = append(out, match{w, nil})
			continue
		}
		pv := w.choose(n.Node, taken)
		if pv != nil {
			taken[pv.Name] = true
		}
		out = append(out, match{w, pv})
	}
	for _, m := range out {
		if m.volume == nil {
			if why := b.provisionable(m.claim, n.Node); why != "" {
				return nil, why
			}
		}
	}
	return out, ""
}

// provisionable tells why no volume can be made for a claim on n.
func (b *binding) provisionable(w *waiting, n *corev1.Node) string {
	if w.class.Provisioner == "" || w.class.Provisioner == noProvisioner || !allowed(w.class.AllowedTopologies, n) {
		return noVolume
	}
	driver, ok := sched.Get[*storagev1.CSIDriver](b.objects, "", w.class.Provisioner)
	if _, sized := w.Spec.Resources.Requests[corev1.ResourceStorage]; !sized || !ok || driver.Spec.StorageCapacity == nil || !*driver.Spec.StorageCapacity {
		return ""
	}
	for c := range sched.In[*storagev1.CSIStorageCapacity](b.objects, "") {
		if c.StorageClassName == w.class.Name && holds(c, w, n) {
			return ""
		}
	}
	return noSpace
}

var errGone = errors.New("pod or claim does not exist any more")

// writes claims the chosen volumes, and asks for those that are to be made.
func writes(b *binding, _ *sched.Pod, n *sched.Node) (out []sched.Write) {
	if b == nil {
		return nil
	}
	matches, _ := b.plan(n)
	for _, m := range matches {
		if m.volume != nil {
			out = append(out, sched.Write{Object: claimed(m.volume, m.claim.PersistentVolumeClaim), Done: b.done(m, n)})
			continue
		}
		claim := m.claim.DeepCopy()
		metav1.SetMetaDataAnnotation(&claim.ObjectMeta, selectedNode, n.Name)
		out = append(out, sched.Write{Object: claim, Done: b.done(m, n)})
	}
	return out
}

// claimed is the volume with its claim in it.
func claimed(pv *corev1.PersistentVolume, c *corev1.PersistentVolumeClaim) *corev1.PersistentVolume {
	pv = pv.DeepCopy()
	if !preclaimed(pv, c) {
		metav1.SetMetaDataAnnotation(&pv.ObjectMeta, boundByController, "yes")
	}
	pv.Spec.ClaimRef = &corev1.ObjectReference{
		Kind: "PersistentVolumeClaim", APIVersion: "v1",
		Namespace: c.Namespace, Name: c.Name, UID: c.UID, ResourceVersion: c.ResourceVersion,
	}
	return pv
}

// done waits for the volume controller, or the provisioner, to do its part.
func (b *binding) done(m match, n *sched.Node) func(o sched.Objects) (bool, error) {
	ns, name, node := m.claim.Namespace, m.claim.Name, n.Node
	return func(o sched.Objects) (bool, error) {
		claim, ok := sched.Get[*corev1.PersistentVolumeClaim](o, ns, name)
		switch {
		case !ok:
			return false, errGone
		case m.volume == nil && claim.Annotations[selectedNode] != node.Name:
			return false, fmt.Errorf("provisioning failed for PVC %q", name)
		}
		volume := claim.Spec.VolumeName
		if m.volume != nil {
			volume = m.volume.Name
		}
		pv, ok := sched.Get[*corev1.PersistentVolume](o, "", volume)
		switch {
		case !ok:
			return false, nil
		case m.volume != nil && (pv.Spec.ClaimRef == nil || pv.Spec.ClaimRef.UID == ""):
			return false, fmt.Errorf("ClaimRef got reset for pv %q", pv.Name)
		}
		if c := newCandidate(pv); !c.reaches(node) {
			return false, fmt.Errorf("pv %q node affinity doesn't match node %q", pv.Name, node.Name)
		}
		return claim.Spec.VolumeName != "" && metav1.HasAnnotation(claim.ObjectMeta, bindCompleted), nil
	}
}
