package authz

import (
	"bytes"
	"maps"

	"google.golang.org/protobuf/encoding/protowire"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/knarr-dev/knarr/registry/cache"
	"github.com/knarr-dev/knarr/registry/needs"
)

// A graph knows what nodes need: what the pods on them refer to, and the
// volumes behind their claims with the secrets of those.
type graph struct {
	pods    map[string]*placed
	uses    map[needs.Ref]map[string]int // how many pods on each node need it
	volumes map[string]*volume
	secrets map[needs.Ref]map[string]struct{} // the volumes that need a secret
	owned   map[thing]string                  // the node of a thing that has one
}

// A placed pod is one that is on a node.
type placed struct {
	node    string
	spec    []byte // as stored, to see that nothing has changed
	devices bool   // it has claims whose names only its status tells
	refs    []needs.Ref
}

// A volume is bound to a claim.
type volume struct {
	claim   needs.Ref
	secrets []needs.Ref
}

// A thing is an attachment or a slice.
type thing struct{ kind, name string }

func newGraph() *graph {
	return &graph{
		pods: map[string]*placed{}, uses: map[needs.Ref]map[string]int{}, volumes: map[string]*volume{},
		secrets: map[needs.Ref]map[string]struct{}{}, owned: map[thing]string{},
	}
}

// Numbers of fields, of a Pod and of a PodSpec.
const (
	specField     = 2
	nodeNameField = 10
)

func (g *graph) putPod(o *cache.Object) error {
	spec := fieldOf(o.Raw, specField)
	node := string(fieldOf(spec, nodeNameField))
	if node == "" {
		return nil
	}
	if p := g.pods[o.Key]; p != nil && !p.devices && bytes.Equal(p.spec, spec) {
		return nil // what a pod needs stands in its spec
	}
	obj, err := o.Decode()
	if err != nil {
		return err
	}
	pod := obj.(*corev1.Pod)
	g.dropPod(o)
	p := &placed{node: node, spec: spec, devices: len(pod.Spec.ResourceClaims) > 0}
	// A mirror pod gets its node nothing, for a node can make as many as it likes.
	if _, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]; !mirror {
		p.refs = needs.OfPod(pod)
	}
	g.pods[o.Key] = p
	for _, r := range p.refs {
		if g.uses[r] == nil {
			g.uses[r] = map[string]int{}
		}
		g.uses[r][node]++
	}
	return nil
}

// fieldOf is the last field of a message that has the given number.
func fieldOf(msg []byte, want protowire.Number) (found []byte) {
	for len(msg) > 0 {
		num, typ, n := protowire.ConsumeTag(msg)
		if n < 0 {
			return found
		}
		msg = msg[n:]
		if n = protowire.ConsumeFieldValue(num, typ, msg); n < 0 {
			return found
		}
		if num == want && typ == protowire.BytesType {
			found, _ = protowire.ConsumeBytes(msg)
		}
		msg = msg[n:]
	}
	return found
}

func (g *graph) dropPod(o *cache.Object) {
	p := g.pods[o.Key]
	if p == nil {
		return
	}
	delete(g.pods, o.Key)
	for _, r := range p.refs {
		if g.uses[r][p.node]--; g.uses[r][p.node] == 0 {
			delete(g.uses[r], p.node)
		}
		if len(g.uses[r]) == 0 {
			delete(g.uses, r)
		}
	}
}

func (g *graph) putVolume(o *cache.Object) error {
	obj, err := o.Decode()
	if err != nil {
		return err
	}
	g.dropVolume(o)
	pv := obj.(*corev1.PersistentVolume)
	if pv.Spec.ClaimRef == nil {
		return nil
	}
	v := &volume{claim: needs.Ref{Kind: needs.Claim, Namespace: pv.Spec.ClaimRef.Namespace, Name: pv.Spec.ClaimRef.Name}, secrets: needs.OfVolume(pv)}
	g.volumes[o.Key] = v
	for _, s := range v.secrets {
		if g.secrets[s] == nil {
			g.secrets[s] = map[string]struct{}{}
		}
		g.secrets[s][o.Key] = struct{}{}
	}
	return nil
}

func (g *graph) dropVolume(o *cache.Object) {
	v := g.volumes[o.Key]
	if v == nil {
		return
	}
	delete(g.volumes, o.Key)
	for _, s := range v.secrets {
		delete(g.secrets[s], o.Key)
		if len(g.secrets[s]) == 0 {
			delete(g.secrets, s)
		}
	}
}

func (g *graph) putOwned(kind string) func(o *cache.Object) error {
	return func(o *cache.Object) error {
		obj, err := o.Decode()
		if err != nil {
			return err
		}
		switch obj := obj.(type) {
		case *storagev1.VolumeAttachment:
			g.owned[thing{kind, o.Key}] = obj.Spec.NodeName
		case *resourcev1.ResourceSlice:
			if obj.Spec.NodeName != nil {
				g.owned[thing{kind, o.Key}] = *obj.Spec.NodeName
			}
		}
		return nil
	}
}

func (g *graph) wipeOwned(kind string) {
	maps.DeleteFunc(g.owned, func(t thing, _ string) bool { return t.kind == kind })
}

// leads reports whether a node needs what ref names.
func (g *graph) leads(node string, ref needs.Ref) bool {
	if g.uses[ref][node] > 0 {
		return true
	}
	if ref.Kind == needs.Secret {
		for pv := range g.secrets[ref] {
			if g.mounts(node, pv) {
				return true
			}
		}
	}
	return false
}

// mounts reports whether a pod on a node has the claim of a volume.
func (g *graph) mounts(node, pv string) bool {
	v := g.volumes[pv]
	return v != nil && g.uses[v.claim][node] > 0
}

// runs reports whether a pod is on a node.
func (g *graph) runs(node, key string) bool {
	p := g.pods[key]
	return p != nil && p.node == node
}
