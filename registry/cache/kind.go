package cache

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unique"

	"github.com/google/btree"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/registry/wire"
)

// An Object is one revision of one object, with what it is selected by.
type Object struct {
	wire.Object

	Key    string // namespace/name, or the name of what is in no namespace
	labels wire.Labels
	fields []unique.Handle[string] // in the order of Kind.fields
}

// Name is the object's name.
func (o *Object) Name() string { return o.Key[strings.IndexByte(o.Key, '/')+1:] }

// Namespace is the object's namespace, "" where it has none.
func (o *Object) Namespace() string { return o.Key[:max(0, strings.IndexByte(o.Key, '/'))] }

func less(a, b *Object) bool { return a.Key < b.Key }

// degree of the trees: large enough that a list walks few nodes, small
// enough that a change during a list copies little.
const degree = 32

// A Kind is the objects of one kind. Use Cache.Add.
type Kind struct {
	*wire.Kind

	Path    string // of its keys, under Root
	Cluster bool   // its objects are in no namespace

	cache  *Cache
	field  map[string]func(apis.Object) string
	fields []string // the names of field, sorted
	main   int      // which of fields is indexed, -1 for none

	awaited awaited
	next    atomic.Pointer[Kind] // what has taken this one's place

	mu       sync.RWMutex
	tree     *btree.BTreeG[*Object]
	labelled map[wire.Label]set
	fielded  map[unique.Handle[string]]set // by the value of field main
	rev      int64                         // of the last event
	size     int                           // bytes of all objects
	log      log
	watchers map[topic]map[*Watcher]struct{}
	since    int64    // events up to this revision are known already
	loading  bool     // the objects are being read
	late     []*Event // those that came in the meantime
	over     bool     // nobody tells it anything any more
}

type set map[*Object]struct{}

// Config says what the cache must know of a kind.
type Config struct {
	Path    string                              // of its keys, under Root
	Cluster bool                                // its objects are in no namespace
	Fields  map[string]func(apis.Object) string // that it can be selected by
	Indexed string                              // the one that most select by
}

// Add makes the cache keep a kind. It must not be called while the cache
// runs, but for by Found.
func (c *Cache) Add(w *wire.Kind, cfg Config) *Kind {
	k := c.newKind(w, cfg)
	c.set(cfg.Path, k)
	return k
}

func (c *Cache) newKind(w *wire.Kind, cfg Config) *Kind {
	k := &Kind{
		Kind: w, Path: cfg.Path, Cluster: cfg.Cluster, cache: c, field: cfg.Fields, main: -1,
		tree: btree.NewG(degree, less), labelled: map[wire.Label]set{}, fielded: map[unique.Handle[string]]set{},
		watchers: map[topic]map[*Watcher]struct{}{},
	}
	for name := range cfg.Fields {
		k.fields = append(k.fields, name)
	}
	slices.Sort(k.fields)
	if cfg.Indexed != "" {
		k.main = slices.Index(k.fields, cfg.Indexed)
	}
	return k
}

// object makes the object at key from what is stored.
func (k *Kind) object(key string, value []byte, rev int64) (*Object, error) {
	o, err := k.Object(value, rev)
	if err != nil {
		return nil, err
	}
	obj := &Object{Object: wire.Object{Kind: k.Kind, Raw: o.Raw, Rev: rev}, Key: key, labels: o.Labels()}
	if len(k.fields) == 0 {
		return obj, nil
	}
	if fields, ok := k.awaited.take(key, value); ok {
		obj.fields = fields
		return obj, nil
	}
	typed, err := obj.Decode()
	if err != nil {
		return nil, err
	}
	obj.fields = k.fieldsOf(typed)
	return obj, nil
}

// fieldsOf is what obj can be selected by, in the order of k.fields.
func (k *Kind) fieldsOf(obj apis.Object) []unique.Handle[string] {
	fields := make([]unique.Handle[string], len(k.fields))
	for i, name := range k.fields {
		fields[i] = unique.Make(k.field[name](obj))
	}
	return fields
}

// Get returns the object at key, nil without one.
func (k *Kind) Get(key string) *Object {
	k = k.latest()
	k.mu.RLock()
	defer k.mu.RUnlock()
	o, _ := k.tree.Get(&Object{Key: key})
	return o
}

// Len is how many objects there are.
func (k *Kind) Len() int {
	k = k.latest()
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.tree.Len()
}

// Changed is the revision of the last change that is known, to any object: as
// long as it is the same, so are they.
func (k *Kind) Changed() int64 {
	k = k.latest()
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.rev
}

func (k *Kind) keys() (keys []string) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	k.tree.Ascend(func(o *Object) bool { keys = append(keys, o.Key); return true })
	return keys
}

// start says that the objects so far are those of revision rev.
func (k *Kind) start(rev int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.rev, k.log.oldest, k.since = rev, rev, rev
}

// put makes o the current object at its key and returns the one it replaces.
// The caller holds mu.
func (k *Kind) put(o *Object) *Object {
	old, _ := k.tree.ReplaceOrInsert(o)
	k.unindex(old)
	k.size += len(o.Raw)
	for _, l := range o.labels {
		add(k.labelled, l, o)
	}
	if k.main >= 0 {
		add(k.fielded, o.fields[k.main], o)
	}
	return old
}

// remove takes away what is at key and returns it. The caller holds mu.
func (k *Kind) remove(key string) *Object {
	old, _ := k.tree.Delete(&Object{Key: key})
	k.unindex(old)
	return old
}

func (k *Kind) unindex(o *Object) {
	if o == nil {
		return
	}
	k.size -= len(o.Raw)
	for _, l := range o.labels {
		remove(k.labelled, l, o)
	}
	if k.main >= 0 {
		remove(k.fielded, o.fields[k.main], o)
	}
	k.cache.texts.drop(o)
}

func add[K comparable](index map[K]set, key K, o *Object) {
	s := index[key]
	if s == nil {
		s = set{}
		index[key] = s
	}
	s[o] = struct{}{}
}

func remove[K comparable](index map[K]set, key K, o *Object) {
	s := index[key]
	delete(s, o)
	if len(s) == 0 {
		delete(index, key)
	}
}

// apply makes events happen and tells those who watch.
func (k *Kind) apply(events []*Event) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.loading {
		k.late = append(k.late, events...)
		return
	}
	k.happen(events)
}

// happen is apply for who holds mu.
func (k *Kind) happen(events []*Event) {
	for _, e := range events {
		if e.Rev <= k.since {
			continue
		}
		if e.Object != nil {
			e.Prev = k.put(e.Object)
			if e.Prev != nil && e.Prev.Rev >= e.Rev {
				// Seen already, by a resync that was ahead.
				k.put(e.Prev)
				continue
			}
			e.Type = Modified
			if e.Prev == nil {
				e.Type = Added
			}
		} else {
			e.Prev = k.remove(e.key)
			if e.Prev == nil {
				continue
			}
			e.Type, e.Object = Deleted, e.Prev.at(e.Rev)
		}
		k.rev = max(k.rev, e.Rev)
		k.log.append(e)
		k.tell(e)
	}
	k.log.trim(max(minHistory, k.size))
}

// at is the object with the resourceVersion rev.
func (o *Object) at(rev int64) *Object {
	return &Object{Object: wire.Object{Kind: o.Kind, Raw: o.Raw, Rev: rev}, Key: o.Key, labels: o.labels, fields: o.fields}
}

// remember puts events from before the start into the log, which then goes
// back to revision oldest.
func (k *Kind) remember(past []*Event, oldest, start int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.log.oldest != start {
		return // what followed is not all there any more, or never was
	}
	oldest = max(oldest, k.cache.compacted.Load())
	for i, e := range past {
		switch {
		case e.Object == nil && e.Prev == nil:
			// Deleted, and what it was is compacted: nobody may go on from here.
			oldest = max(oldest, e.Rev)
			past[i] = nil
		case e.Object == nil:
			e.Type, e.Object = Deleted, e.Prev.at(e.Rev)
		case e.Prev == nil:
			e.Type = Added
		default:
			e.Type = Modified
		}
		if now, ok := k.tree.Get(&Object{Key: e.key}); ok && now.Rev == e.Rev {
			e.Object = now // one copy of its bytes is enough
		}
	}
	past = slices.DeleteFunc(past, func(e *Event) bool { return e == nil || e.Rev <= oldest })
	k.log.prepend(past, oldest)
}

// forget drops history up to revision rev.
func (k *Kind) forget(rev int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.log.forget(rev)
}
