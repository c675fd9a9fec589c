package run

import (
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-dev/knarr/kubelet/pod"
	"github.com/knarr-dev/knarr/kubelet/probe"
)

// Pods is what the kubelet knows of its pods, for the rest of the process to
// read: the HTTP server, the statistics. Run fills the one in its Config. The
// zero value is empty and ready, and every method may be called at any time.
type Pods struct {
	mu   sync.RWMutex
	pods map[types.UID]known
	post func(types.UID, func(*pod.State)) // to a pod's worker; nil while nothing runs
}

// known is one pod as its worker last saw it.
type known struct {
	pod        *corev1.Pod // never changed once it is here
	sandbox    string
	containers map[string]instance
}

// instance is the newest container of a name.
type instance struct {
	id      string
	running bool
}

// List has the pods with their current statuses, ordered by namespace and
// name. They belong to the kubelet: copy before changing one.
func (p *Pods) List() []*corev1.Pod {
	p.mu.RLock()
	list := make([]*corev1.Pod, 0, len(p.pods))
	for _, k := range p.pods {
		list = append(list, k.pod)
	}
	p.mu.RUnlock()
	slices.SortFunc(list, func(a, b *corev1.Pod) int {
		return strings.Compare(a.Namespace+"/"+a.Name+"/"+string(a.UID), b.Namespace+"/"+b.Name+"/"+string(b.UID))
	})
	return list
}

// Pod is one pod with its current status; nil where there is none. An empty
// uid is any: of several pods of the name then the one made last.
func (p *Pods) Pod(namespace, name string, uid types.UID) *corev1.Pod {
	k := p.find(namespace, name, uid)
	return k.pod
}

// Container is the CRI id of a pod's newest container of that name, and
// whether it runs. The id is empty where there is none. Init and ephemeral
// containers are found too.
func (p *Pods) Container(namespace, name string, uid types.UID, container string) (id string, running bool) {
	k := p.find(namespace, name, uid)
	c := k.containers[container]
	return c.id, c.running
}

// Sandbox is the CRI id of a pod's ready sandbox; empty where there is none.
func (p *Pods) Sandbox(namespace, name string, uid types.UID) string {
	k := p.find(namespace, name, uid)
	return k.sandbox
}

func (p *Pods) find(namespace, name string, uid types.UID) (best known) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if uid != "" {
		k, ok := p.pods[uid]
		if !ok || k.pod.Namespace != namespace || k.pod.Name != name {
			return known{}
		}
		return k
	}
	for _, k := range p.pods {
		if k.pod.Namespace == namespace && k.pod.Name == name &&
			(best.pod == nil || best.pod.CreationTimestamp.Before(&k.pod.CreationTimestamp)) {
			best = k
		}
	}
	return best
}

func (p *Pods) byUID(uid types.UID) (known, bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	k, ok := p.pods[uid]
	return k, ok
}

// Refresh has a pod prepared again, because something that it refers to has
// changed. What failed for want of it is tried again at once.
func (p *Pods) Refresh(uid types.UID) {
	p.change(uid, func(s *pod.State) {
		s.Stale = true
		for who, t := range s.Trouble {
			if who == "" || t.Reason == configReason {
				t.Until = time.Time{}
				s.Trouble[who] = t
			}
		}
	})
}

// Probed notes what a probe of a container has come to.
func (p *Pods) Probed(uid types.UID, id string, kind probe.Kind, good bool) {
	result := pod.Bad
	if good {
		result = pod.Good
	}
	p.change(uid, func(s *pod.State) {
		r := s.Probes[id]
		switch kind {
		case probe.Startup:
			r.Startup = result
		case probe.Liveness:
			r.Liveness = result
		case probe.Readiness:
			r.Readiness = result
		}
		s.Probes[id] = r
	})
}

// Evict ends a pod for a reason that is not its own, with a grace period where
// that is not nil.
func (p *Pods) Evict(uid types.UID, end pod.End) {
	p.change(uid, func(s *pod.State) {
		if s.End == nil {
			s.End = &end
		}
	})
}

func (p *Pods) change(uid types.UID, f func(*pod.State)) {
	p.mu.RLock()
	post := p.post
	p.mu.RUnlock()
	if post != nil {
		post(uid, f)
	}
}

func (p *Pods) connect(post func(types.UID, func(*pod.State))) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.post = post
}

func (p *Pods) put(uid types.UID, k known) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pods == nil {
		p.pods = map[types.UID]known{}
	}
	p.pods[uid] = k
}

func (p *Pods) drop(uid types.UID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.pods, uid)
}
