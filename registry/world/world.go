// Package world shows other parts of the server the objects that they decide
// by: of admission, authorization and authentication. It reads the cache, and
// the store for what the cache does not have; what this server itself has
// written is always seen. It writes nothing.
package world

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/cache"
	"github.com/knarr-dev/knarr/registry/rest"
)

// kept are the kinds that are asked for with most requests and change rarely:
// their objects are decoded once a revision and shared by all who ask.
var kept = []schema.GroupResource{
	{Resource: "namespaces"},
	{Resource: "serviceaccounts"},
	{Resource: "limitranges"},
	{Resource: "resourcequotas"},
	{Group: "scheduling.k8s.io", Resource: "priorityclasses"},
	{Group: "storage.k8s.io", Resource: "storageclasses"},
	{Group: "networking.k8s.io", Resource: "ingressclasses"},
	{Group: "node.k8s.io", Resource: "runtimeclasses"},
	{Group: "admissionregistration.k8s.io", Resource: "mutatingadmissionpolicies"},
	{Group: "admissionregistration.k8s.io", Resource: "mutatingadmissionpolicybindings"},
	{Group: "admissionregistration.k8s.io", Resource: "validatingadmissionpolicies"},
	{Group: "admissionregistration.k8s.io", Resource: "validatingadmissionpolicybindings"},
	{Group: "admissionregistration.k8s.io", Resource: "mutatingwebhookconfigurations"},
	{Group: "admissionregistration.k8s.io", Resource: "validatingwebhookconfigurations"},
	{Group: "rbac.authorization.k8s.io", Resource: "clusterroles"},
	{Group: "rbac.authorization.k8s.io", Resource: "clusterrolebindings"},
	{Group: "rbac.authorization.k8s.io", Resource: "roles"},
	{Group: "rbac.authorization.k8s.io", Resource: "rolebindings"},
}

// A World is the objects of a service. Use New.
type World struct {
	svc     *rest.Service
	shelves map[schema.GroupResource]*shelf
	written map[string]*atomic.Int64 // by first part of the path under /registry/: the last own write
}

// A shelf holds the decoded objects of one kind.
type shelf struct {
	kind    *rest.Kind
	written *atomic.Int64

	mu   sync.RWMutex
	objs map[string]decoded
}

type decoded struct {
	from *cache.Object
	obj  apis.Object
}

// New returns the world that svc holds, whose kinds have been added, and
// makes svc's writes known to it.
func New(svc *rest.Service) *World {
	w := &World{svc: svc, shelves: map[schema.GroupResource]*shelf{}, written: map[string]*atomic.Int64{}}
	for _, gr := range kept {
		k := svc.Kind(gr)
		if k == nil || k.Objects == nil {
			continue
		}
		s := &shelf{kind: k, written: &atomic.Int64{}, objs: map[string]decoded{}}
		w.shelves[gr] = s
		w.written[k.StoredAt] = s.written
	}
	svc.Store = &noted{svc.Store, w}
	return w
}

// noted is a store that remembers what was written last through it.
type noted struct {
	registry.Store

	w *World
}

// Commit is part of registry.Store.
func (n *noted) Commit(ctx context.Context, ops ...registry.Op) (int64, error) {
	rev, err := n.Store.Commit(ctx, ops...)
	if err != nil {
		return rev, err
	}
	for _, op := range ops {
		path, _, _ := strings.Cut(strings.TrimPrefix(op.Key, cache.Root), "/")
		last := n.w.written[path]
		for last != nil {
			if was := last.Load(); was >= rev || last.CompareAndSwap(was, rev) {
				break
			}
		}
	}
	return rev, nil
}

// Await waits until everything is seen that this server has written of the
// given kinds, which must be of those that many decide by. Mostly it is.
func (w *World) Await(ctx context.Context, kinds ...schema.GroupResource) error {
	for _, gr := range kinds {
		if s := w.shelves[gr]; s != nil {
			if err := w.await(ctx, s); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *World) await(ctx context.Context, s *shelf) error {
	if rev := s.written.Load(); rev > w.svc.Cache.Rev() {
		return w.svc.Cache.Wait(ctx, rev)
	}
	return nil
}

// Lookup returns an object that nobody may change, and a NotFound Status if
// there is none.
func (w *World) Lookup(ctx context.Context, gr schema.GroupResource, namespace, name string) (apis.Object, error) {
	obj, err := w.Known(ctx, gr, namespace, name)
	if apierrors.IsNotFound(err) {
		return w.svc.Lookup(ctx, gr, namespace, name)
	}
	return obj, err
}

// Known is Lookup by the cache alone: what another server has just made may
// not be found.
func (w *World) Known(ctx context.Context, gr schema.GroupResource, namespace, name string) (apis.Object, error) {
	s := w.shelves[gr]
	if s == nil {
		return w.svc.Known(ctx, gr, namespace, name)
	}
	if err := w.await(ctx, s); err != nil {
		return nil, err
	}
	if o := s.kind.Objects.Get(registry.Key(namespace, name)); o != nil {
		return s.decode(o)
	}
	return nil, apierrors.NewNotFound(gr, name)
}

// All returns the objects of a kind in a namespace, "" for all, which nobody
// may change.
func (w *World) All(ctx context.Context, gr schema.GroupResource, namespace string) ([]apis.Object, error) {
	s := w.shelves[gr]
	if s == nil {
		return w.svc.All(ctx, gr, namespace)
	}
	if err := w.await(ctx, s); err != nil {
		return nil, err
	}
	if s.kind.Objects.Len() == 0 {
		return nil, nil
	}
	list, err := s.kind.Objects.List(ctx, cache.Query{Selection: cache.Selection{Namespace: namespace}})
	if err != nil {
		return nil, err
	}
	objs := make([]apis.Object, len(list.Objects))
	for i, o := range list.Objects {
		if objs[i], err = s.decode(o); err != nil {
			return nil, err
		}
	}
	return objs, nil
}

// decode returns the object that o holds, the same at each call.
func (s *shelf) decode(o *cache.Object) (apis.Object, error) {
	s.mu.RLock()
	have := s.objs[o.Key]
	s.mu.RUnlock()
	if have.from == o {
		return have.obj, nil
	}
	obj, err := o.Decode()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.objs) > 2*s.kind.Objects.Len()+16 {
		for key := range s.objs {
			if s.kind.Objects.Get(key) == nil {
				delete(s.objs, key)
			}
		}
	}
	s.objs[o.Key] = decoded{o, obj}
	return obj, nil
}

// Trace returns an object's UID, and when it is to be gone, zero for never.
// It decodes no more than it must.
func (w *World) Trace(ctx context.Context, gr schema.GroupResource, namespace, name string) (types.UID, time.Time, error) {
	if k := w.svc.Kind(gr); k != nil && k.Objects != nil {
		if o := k.Objects.Get(registry.Key(namespace, name)); o != nil {
			uid, gone := trace(o.Metadata())
			return uid, gone, nil
		}
	}
	obj, err := w.svc.Lookup(ctx, gr, namespace, name)
	if err != nil {
		return "", time.Time{}, err
	}
	var gone time.Time
	if t := obj.GetDeletionTimestamp(); t != nil {
		gone = t.Time
	}
	return obj.GetUID(), gone, nil
}

// trace reads the UID and the time of deletion from the message of metadata.
func trace(meta []byte) (uid types.UID, gone time.Time) {
	const uidField, deletionField = 5, 9 // of ObjectMeta
	for len(meta) > 0 {
		num, typ, n := protowire.ConsumeTag(meta)
		if n < 0 {
			break
		}
		meta = meta[n:]
		if typ != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(num, typ, meta); n < 0 {
				break
			}
			meta = meta[n:]
			continue
		}
		val, n := protowire.ConsumeBytes(meta)
		if n < 0 || num > deletionField {
			break
		}
		meta = meta[n:]
		switch num {
		case uidField:
			uid = types.UID(val)
		case deletionField:
			var t metav1.Time
			if t.Unmarshal(val) == nil {
				gone = t.Time
			}
		}
	}
	return uid, gone
}
