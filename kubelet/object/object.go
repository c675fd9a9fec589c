// Package object has the ConfigMaps and Secrets that the node's pods refer to.
//
// Each is fetched when a pod first asks for it and watched by itself for as
// long as one of its pods lives: a node may see no others. An immutable one is
// not watched.
package object

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"

	"github.com/knarr-dev/knarr/kubelet"
)

const (
	// The authorizer learns of a pod and of what it refers to a moment after
	// the kubelet does: the first attempts may be refused.
	firstRetry = 50 * time.Millisecond
	maxRetry   = 10 * time.Second
	// patience is how long a pod waits for an object that cannot be had.
	patience = 5 * time.Second
)

// A Store has the objects.
type Store struct {
	ctx     context.Context //nolint:containedctx // the life of the watches
	client  kubernetes.Interface
	changed func(types.UID)

	mu      sync.Mutex
	entries map[key]*entry
}

type key struct{ kind, namespace, name string }

// entry is one object that somebody needs.
type entry struct {
	key    key
	pods   map[types.UID]bool
	stop   context.CancelFunc
	known  chan struct{} // closed when it was had once, or is known not to be there
	object metav1.Object
	err    error
}

// New returns a store without objects. It tells changed of each pod that has
// asked for an object that changes. Its watches end with ctx.
func New(ctx context.Context, client kubernetes.Interface, changed func(types.UID)) *Store {
	return &Store{ctx: ctx, client: client, changed: changed, entries: map[key]*entry{}}
}

// Hook lets go of what a pod has asked for when it is no more.
func (s *Store) Hook() kubelet.Hook {
	return kubelet.Hook{Name: "object", Cleanup: s.release}
}

// ConfigMap is a ConfigMap that pod refers to. The error is the API's. It must
// not be changed.
func (s *Store) ConfigMap(ctx context.Context, pod types.UID, namespace, name string) (*corev1.ConfigMap, error) {
	return get[*corev1.ConfigMap](ctx, s, pod, key{"configmap", namespace, name})
}

// Secret is a Secret that pod refers to. The error is the API's. It must not
// be changed.
func (s *Store) Secret(ctx context.Context, pod types.UID, namespace, name string) (*corev1.Secret, error) {
	return get[*corev1.Secret](ctx, s, pod, key{"secret", namespace, name})
}

func get[T metav1.Object](ctx context.Context, s *Store, pod types.UID, k key) (T, error) {
	var none T
	s.mu.Lock()
	e := s.entries[k]
	if e == nil {
		ctx, stop := context.WithCancel(s.ctx)
		e = &entry{key: k, pods: map[types.UID]bool{}, stop: stop, known: make(chan struct{})}
		s.entries[k] = e
		go s.follow(ctx, e) //nolint:contextcheck // it is for all who ask, not for the first
	}
	e.pods[pod] = true
	s.mu.Unlock()

	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-e.known:
	case <-ctx.Done():
		return none, ctx.Err()
	case <-timer.C:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch o, ok := e.object.(T); {
	case ok:
		return o, nil
	case e.err != nil:
		return none, e.err
	}
	return none, fmt.Errorf("get %s %s/%s: no answer yet", k.kind, k.namespace, k.name)
}

func (s *Store) release(_ context.Context, pod types.UID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, e := range s.entries {
		delete(e.pods, pod)
		if len(e.pods) == 0 {
			e.stop()
			delete(s.entries, k)
		}
	}
	return nil
}

// follow keeps an entry as the API has it until ctx ends.
func (s *Store) follow(ctx context.Context, e *entry) {
	retry := firstRetry
	for ctx.Err() == nil {
		o, err := s.fetch(ctx, e.key)
		s.put(e, o, err)
		if err == nil && immutable(o) {
			return
		}
		if err == nil || apierrors.IsNotFound(err) {
			began := time.Now()
			s.watch(ctx, e, o)
			if time.Since(began) > maxRetry {
				retry = firstRetry
				continue
			}
		}
		t := time.NewTimer(retry)
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
		retry = min(2*retry, maxRetry)
	}
}

func (s *Store) fetch(ctx context.Context, k key) (metav1.Object, error) {
	if k.kind == "secret" {
		return s.client.CoreV1().Secrets(k.namespace).Get(ctx, k.name, metav1.GetOptions{})
	}
	return s.client.CoreV1().ConfigMaps(k.namespace).Get(ctx, k.name, metav1.GetOptions{})
}

// watch follows an object from the state o, nil where there was none, for as
// long as the API server lets it.
func (s *Store) watch(ctx context.Context, e *entry, o metav1.Object) {
	opts := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", e.key.name).String()}
	if s.exists(e) {
		opts.ResourceVersion = o.GetResourceVersion()
	}
	var w watch.Interface
	var err error
	if e.key.kind == "secret" {
		w, err = s.client.CoreV1().Secrets(e.key.namespace).Watch(ctx, opts)
	} else {
		w, err = s.client.CoreV1().ConfigMaps(e.key.namespace).Watch(ctx, opts)
	}
	if err != nil {
		return // it is fetched again, and that tells what is wrong
	}
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case ev, ok := <-w.ResultChan():
			if !ok {
				return
			}
			switch ev.Type {
			case watch.Added, watch.Modified:
				s.put(e, ev.Object.(metav1.Object), nil)
			case watch.Deleted:
				s.put(e, nil, apierrors.NewNotFound(corev1.Resource(e.key.kind), e.key.name))
			case watch.Error:
				return
			case watch.Bookmark:
			}
		}
	}
}

func (s *Store) exists(e *entry) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return e.object != nil
}

// put notes what the API says of an object. What could not be learned does not
// replace what is known.
func (s *Store) put(e *entry, o metav1.Object, err error) {
	s.mu.Lock()
	first := !closed(e.known)
	was := version(e.object)
	switch {
	case err == nil:
		e.object, e.err = o, nil
	case apierrors.IsNotFound(err):
		// In upstream's words, which the pod's status shows.
		e.object, e.err = nil, apierrors.NewNotFound(corev1.Resource(e.key.kind), e.key.name)
	case first:
		e.err = err
	}
	if first && (err == nil || apierrors.IsNotFound(err)) {
		close(e.known)
	}
	var tell []types.UID
	if !first && version(e.object) != was {
		for pod := range e.pods {
			tell = append(tell, pod)
		}
	}
	s.mu.Unlock()
	for _, pod := range tell {
		s.changed(pod)
	}
}

func closed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// version tells an object from a later or another one of its name.
func version(o metav1.Object) string {
	if o == nil {
		return ""
	}
	return string(o.GetUID()) + "/" + o.GetResourceVersion()
}

func immutable(o metav1.Object) bool {
	switch o := o.(type) {
	case *corev1.ConfigMap:
		return o.Immutable != nil && *o.Immutable
	case *corev1.Secret:
		return o.Immutable != nil && *o.Immutable
	}
	return false
}
