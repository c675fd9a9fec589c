package run

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/knarr-dev/knarr/proxy/lb"
	"github.com/knarr-dev/knarr/proxy/network"
)

// The kinds of owners.
const (
	kindService = "service"
	kindPod     = "pod"
)

// podPatience is how long services wait for pods: the stock proxy's role does
// not let it see any.
const podPatience = 5 * time.Second

// byService is the index of EndpointSlices by the Service they are of.
const byService = "proxy/service"

// A source is what the API server has, and of whom that has changed.
type source struct {
	node                          string
	services, slices, nodes, pods cache.SharedIndexInformer
	known                         []registration // that of the nodes first

	news chan struct{} // holds one where there are reasons

	mu        sync.Mutex
	dirty     changes
	marked    map[lb.Owner]bool
	ofNodes   bool // reasons
	ofService bool
	complete  bool // there is nothing that has not been heard of yet
}

type registration struct {
	informer cache.SharedIndexInformer
	cache.ResourceEventHandlerRegistration
}

// changes are whose entries have to be planned anew.
type changes struct {
	owners   []lb.Owner
	caused   []time.Time // when what led to changed endpoints happened
	services int         // how often a Service changed
	slices   int         // and an EndpointSlice
}

func newSource(ctx context.Context, c Config) (*source, error) {
	s := &source{
		node: c.Node, news: make(chan struct{}, 1), marked: map[lb.Owner]bool{},
		services: c.Informers.Core().V1().Services().Informer(),
		slices:   c.Informers.Discovery().V1().EndpointSlices().Informer(),
		nodes:    c.Informers.Core().V1().Nodes().Informer(),
		pods:     c.Pods,
	}
	if s.pods == nil {
		s.pods = c.Informers.Core().V1().Pods().Informer()
	}
	if err := s.index(); err != nil {
		return nil, err
	}
	var errs []error
	errs = append(errs,
		handle(s, s.nodes, s.nodeChanged), handle(s, s.services, s.serviceChanged),
		handle(s, s.slices, s.sliceChanged), handle(s, s.pods, s.podChanged),
	)
	if err := errors.Join(errs...); err != nil {
		s.close()
		return nil, fmt.Errorf("follow the API server: %w", err)
	}
	go s.announce(ctx)
	return s, nil
}

// index adds the index, unless another proxy has on the same informers.
func (s *source) index() error {
	by := func(obj any) ([]string, error) {
		slice := obj.(*discoveryv1.EndpointSlice)
		return []string{slice.Namespace + "/" + slice.Labels[discoveryv1.LabelServiceName]}, nil
	}
	err := s.slices.AddIndexers(cache.Indexers{byService: by})
	if _, ok := s.slices.GetIndexer().GetIndexers()[byService]; ok {
		return nil
	}
	return fmt.Errorf("index endpoint slices: %w", err)
}

// handle has f told of changes: of what was there, nil if new, and of what is,
// nil if gone.
func handle[T any](s *source, informer cache.SharedIndexInformer, f func(was, is *T)) error {
	object := func(obj any) *T {
		if last, missed := obj.(cache.DeletedFinalStateUnknown); missed {
			obj = last.Obj
		}
		o, _ := obj.(*T)
		return o
	}
	r, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { f(nil, object(obj)) },
		UpdateFunc: func(old, obj any) { f(object(old), object(obj)) },
		DeleteFunc: func(obj any) { f(object(obj), nil) },
	})
	if err == nil {
		s.known = append(s.known, registration{informer, r})
	}
	return err
}

func (s *source) close() {
	for _, r := range s.known {
		if err := r.informer.RemoveEventHandler(r.ResourceEventHandlerRegistration); err != nil {
			slog.Warn("stop following the API server", "err", err)
		}
	}
}

// announce tells when all nodes are known, and when all of everything is.
func (s *source) announce(ctx context.Context) {
	pods := s.known[len(s.known)-1]
	for _, r := range s.known[:len(s.known)-1] {
		select {
		case <-ctx.Done():
			return
		case <-r.HasSyncedChecker().Done():
		}
		if r == s.known[0] {
			s.mark(func() { s.ofNodes = true })
		}
	}
	timer := time.NewTimer(podPatience)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return
	case <-timer.C:
		slog.WarnContext(ctx, "the node's pods are not known: no host ports are served until they are")
	case <-pods.HasSyncedChecker().Done():
	}
	s.mark(func() { s.complete, s.ofService = true, true })
}

// mark notes something, and that there is news.
func (s *source) mark(note func()) {
	s.mu.Lock()
	note()
	s.mu.Unlock()
	select {
	case s.news <- struct{}{}:
	default:
	}
}

func (s *source) note(o lb.Owner) {
	s.ofService = true
	if !s.marked[o] {
		s.marked[o] = true
		s.dirty.owners = append(s.dirty.owners, o)
	}
}

// reasons tells whether anything is new of nodes, and of services, since it
// was asked last.
func (s *source) reasons() (nodes, services bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	nodes, services = s.ofNodes, s.ofService
	s.ofNodes, s.ofService = false, false
	return nodes, services
}

// take returns what has changed since it was called last.
func (s *source) take() changes {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.dirty
	s.dirty, s.marked = changes{}, map[lb.Owner]bool{}
	return out
}

func (s *source) isComplete() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.complete
}

// markAll notes that all services have to be planned anew.
func (s *source) markAll() {
	all := s.services.GetStore().List()
	s.mark(func() {
		for _, obj := range all {
			s.note(ownerOf(obj.(*corev1.Service)))
		}
	})
}

func ownerOf(svc *corev1.Service) lb.Owner {
	return lb.Owner{Kind: kindService, Namespace: svc.Namespace, Name: svc.Name}
}

func (s *source) serviceChanged(was, is *corev1.Service) {
	if is == nil {
		is = was
	}
	s.mark(func() {
		s.note(ownerOf(is))
		s.dirty.services++
	})
}

func (s *source) sliceChanged(was, is *discoveryv1.EndpointSlice) {
	s.mark(func() {
		s.dirty.slices++
		for _, slice := range []*discoveryv1.EndpointSlice{was, is} {
			if slice == nil {
				continue
			}
			if name := slice.Labels[discoveryv1.LabelServiceName]; name != "" {
				s.note(lb.Owner{Kind: kindService, Namespace: slice.Namespace, Name: name})
			}
		}
		if is == nil || was != nil && was.Annotations[corev1.EndpointsLastChangeTriggerTime] == is.Annotations[corev1.EndpointsLastChangeTriggerTime] {
			return
		}
		if t, err := time.Parse(time.RFC3339Nano, is.Annotations[corev1.EndpointsLastChangeTriggerTime]); err == nil {
			s.dirty.caused = append(s.dirty.caused, t)
		}
	})
}

func (s *source) podChanged(was, is *corev1.Pod) {
	pod := is
	if pod == nil {
		pod = was
	}
	if pod.Spec.NodeName == s.node && opensPorts(pod) {
		s.mark(func() { s.note(lb.Owner{Kind: kindPod, Namespace: pod.Namespace, Name: pod.Name}) })
	}
}

// opensPorts tells whether the pod has host ports, which never changes.
func opensPorts(pod *corev1.Pod) bool {
	for _, cs := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for _, c := range cs {
			for _, p := range c.Ports {
				if p.HostPort != 0 {
					return true
				}
			}
		}
	}
	return false
}

func (s *source) nodeChanged(was, is *corev1.Node) {
	// Nodes report all the time that they are well, which nothing hangs on.
	if was != nil && is != nil && same(was, is) {
		return
	}
	s.mark(func() {
		s.ofNodes = true
		s.ofService = s.ofService || is != nil && is.Name == s.node
	})
}

func same(a, b *corev1.Node) bool {
	m, n := network.Describe(a), network.Describe(b)
	return slices.Equal(m.Addresses, n.Addresses) && slices.Equal(m.Ranges, n.Ranges) &&
		a.Labels[corev1.LabelTopologyZone] == b.Labels[corev1.LabelTopologyZone] && leaving(a) == leaving(b)
}

// plan is what o asks for now.
func (s *source) plan(o lb.Owner, node lb.Node) lb.Plan {
	key := o.Namespace + "/" + o.Name
	if o.Kind == kindPod {
		obj, ok, err := s.pods.GetStore().GetByKey(key)
		if pod, is := obj.(*corev1.Pod); err == nil && ok && is && pod.Spec.NodeName == s.node {
			return lb.Pods(pod)
		}
		return lb.Plan{}
	}
	obj, ok, err := s.services.GetStore().GetByKey(key)
	svc, is := obj.(*corev1.Service)
	if err != nil || !ok || !is {
		return lb.Plan{}
	}
	// It fails only where there is no such index.
	found, _ := s.slices.GetIndexer().ByIndex(byService, key)
	eps := make([]*discoveryv1.EndpointSlice, 0, len(found))
	for _, obj := range found {
		eps = append(eps, obj.(*discoveryv1.EndpointSlice))
	}
	return lb.Services(svc, eps, node)
}

// describe is the node as services depend on it.
func (s *source) describe(name string) lb.Node {
	out := lb.Node{Name: name}
	obj, ok, err := s.nodes.GetStore().GetByKey(name)
	if node, is := obj.(*corev1.Node); err == nil && ok && is {
		out.Zone = node.Labels[corev1.LabelTopologyZone]
		for _, a := range node.Status.Addresses {
			if ip, err := netip.ParseAddr(a.Address); err == nil {
				out.Addresses = append(out.Addresses, ip.Unmap())
			}
		}
	}
	return out
}

// network is the node and the others as the network depends on them. The node
// is nil where it is not there, or not all nodes are known yet.
func (s *source) network(name string) (node *corev1.Node, others []network.Node) {
	if !s.known[0].HasSynced() {
		return nil, nil
	}
	for _, obj := range s.nodes.GetStore().List() {
		if n := obj.(*corev1.Node); n.Name == name {
			node = n
		} else {
			others = append(others, network.Describe(n))
		}
	}
	return node, others
}
