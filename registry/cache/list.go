package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unique"

	"github.com/google/btree"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"

	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/wire"
)

// A Selection says which objects of a kind are wanted.
type Selection struct {
	Namespace string          // "" for all
	Labels    labels.Selector // nil for all
	Fields    fields.Selector // nil for all
}

// everything reports whether all objects in the namespace are wanted.
func (s *Selection) everything() bool {
	return (s.Labels == nil || s.Labels.Empty()) && (s.Fields == nil || s.Fields.Empty())
}

// matches reports whether o is wanted.
func (k *Kind) matches(s *Selection, o *Object) bool {
	if s.Namespace != "" && o.Namespace() != s.Namespace {
		return false
	}
	if s.Labels != nil && !s.Labels.Matches(o.labels) {
		return false
	}
	return s.Fields == nil || s.Fields.Empty() || s.Fields.Matches(fieldsOf{k, o})
}

// fieldsOf are the fields of an object that it can be selected by.
type fieldsOf struct {
	k *Kind
	o *Object
}

func (f fieldsOf) Has(name string) bool {
	_, known := f.k.field[name]
	return known || name == "metadata.name" || name == "metadata.namespace"
}

func (f fieldsOf) Get(name string) string {
	switch name {
	case "metadata.name":
		return f.o.Name()
	case "metadata.namespace":
		return f.o.Namespace()
	}
	if i, ok := slices.BinarySearch(f.k.fields, name); ok {
		return f.o.fields[i].Value()
	}
	return ""
}

// exact returns the value that a selection asks of a field, if it asks for one.
func (s *Selection) exact(field string) (string, bool) {
	if s.Fields == nil {
		return "", false
	}
	return s.Fields.RequiresExactMatch(field)
}

// A Query asks for a list.
type Query struct {
	Selection

	Limit int    // 0 for all
	From  string // the first key wanted
	Rev   int64  // exactly as of this revision; 0 for now
}

// A List is the answer to a Query.
type List struct {
	Objects []*Object
	Rev     int64
	Next    string // the key to go on from, "" at the end
	Left    int    // how many there are from Next on, if the selection lets that be known, else -1
}

// List returns the objects that q asks for, in the order of their keys.
func (k *Kind) List(ctx context.Context, q Query) (List, error) {
	k = k.latest()
	k.mu.Lock() // Clone counts as a write
	tree, rev := k.tree, max(k.rev, k.cache.rev.Load())
	if q.Rev == 0 || q.Rev == rev {
		if picked, ok := k.picked(&q.Selection); ok {
			k.mu.Unlock()
			return k.page(q, picked, rev), nil
		}
		tree = tree.Clone()
		k.mu.Unlock()
		return k.walk(q, tree, rev), nil
	}
	if q.Rev < k.cache.compacted.Load() {
		k.mu.Unlock()
		return List{}, registry.ErrCompacted
	}
	if q.Rev > rev {
		k.mu.Unlock()
		return List{}, registry.ErrFuture
	}
	if q.Rev < k.log.oldest {
		k.mu.Unlock()
		return k.stored(ctx, q)
	}
	tree = tree.Clone()
	undo := slices.Clone(k.log.events[k.log.after(q.Rev):])
	k.mu.Unlock()
	for _, e := range slices.Backward(undo) {
		if e.Prev == nil {
			tree.Delete(e.Object)
		} else {
			tree.ReplaceOrInsert(e.Prev)
		}
	}
	return k.walk(q, tree, q.Rev), nil
}

// picked finds the objects of a selection by an index, in the order of keys;
// ok is false where there is none to find them by. The caller holds mu.
func (k *Kind) picked(s *Selection) (found []*Object, ok bool) {
	if name, exact := s.exact("metadata.name"); exact {
		key := name
		if s.Namespace != "" {
			key = s.Namespace + "/" + name
		} else if ns, exact := s.exact("metadata.namespace"); exact {
			key = ns + "/" + name
		}
		if o, there := k.tree.Get(&Object{Key: key}); there && k.matches(s, o) {
			return []*Object{o}, true
		} else if s.Namespace != "" {
			return nil, true
		}
		return nil, false // a name in any namespace
	}
	sets, ok := k.candidates(s)
	if !ok {
		return nil, false
	}
	for _, candidates := range sets {
		for o := range candidates {
			if k.matches(s, o) {
				found = append(found, o)
			}
		}
	}
	slices.SortFunc(found, func(a, b *Object) int { return strings.Compare(a.Key, b.Key) })
	return found, true
}

// worthwhile is how many times fewer objects an index must leave than there
// are for it to be used: they come in no order, and all at once.
const worthwhile = 8

// candidates are the smallest indexed sets that hold all of a selection; ok is
// false where a walk finds it as fast. The caller holds mu.
func (k *Kind) candidates(s *Selection) (sets []set, ok bool) {
	least := k.tree.Len()/worthwhile + 1
	try := func(found ...set) {
		n := 0
		for _, f := range found {
			n += len(f)
		}
		if n < least {
			least, sets, ok = n, found, true
		}
	}
	if k.main >= 0 {
		if v, exact := s.exact(k.fields[k.main]); exact {
			try(k.fielded[unique.Make(v)])
		}
	}
	if s.Labels != nil {
		reqs, selectable := s.Labels.Requirements()
		if !selectable {
			return nil, true
		}
		for _, r := range reqs {
			switch r.Operator() {
			case selection.Equals, selection.DoubleEquals, selection.In:
				// No object is in two of these: it has one value of a label.
				var found []set
				for _, v := range r.ValuesUnsorted() {
					found = append(found, k.labelled[wire.NewLabel(r.Key(), v)])
				}
				try(found...)
			}
		}
	}
	return sets, ok && (s.Namespace == "" || !k.fewer(s.Namespace, least))
}

// fewer reports whether a namespace has fewer than n objects. The caller
// holds mu.
func (k *Kind) fewer(namespace string, n int) bool {
	prefix := namespace + "/"
	k.tree.AscendGreaterOrEqual(&Object{Key: prefix}, func(o *Object) bool {
		if !strings.HasPrefix(o.Key, prefix) {
			return false
		}
		n--
		return n > 0
	})
	return n > 0
}

// page cuts the page that q asks for out of all objects that it selects.
func (k *Kind) page(q Query, all []*Object, rev int64) List {
	from, _ := slices.BinarySearchFunc(all, q.From, func(o *Object, key string) int { return strings.Compare(o.Key, key) })
	l := List{Objects: all[from:], Rev: rev, Left: -1}
	if q.Limit > 0 && len(l.Objects) > q.Limit {
		l.Next = l.Objects[q.Limit].Key
		l.Objects = l.Objects[:q.Limit]
	}
	return l
}

// walk collects the page that q asks for from a tree of its own.
func (k *Kind) walk(q Query, tree *btree.BTreeG[*Object], rev int64) List {
	l := List{Rev: rev, Left: -1}
	all := q.everything()
	from, prefix := q.From, ""
	if q.Namespace != "" {
		prefix = q.Namespace + "/"
		from = max(from, prefix)
	}
	left := 0
	if all && q.Limit == 0 && prefix == "" {
		l.Objects = make([]*Object, 0, tree.Len())
	}
	tree.AscendGreaterOrEqual(&Object{Key: from}, func(o *Object) bool {
		if !strings.HasPrefix(o.Key, prefix) {
			return false
		}
		if !all && !k.matches(&q.Selection, o) {
			return true
		}
		if q.Limit > 0 && len(l.Objects) == q.Limit {
			if l.Next == "" {
				l.Next = o.Key
			}
			left++
			return all // count the rest where it is cheap
		}
		l.Objects = append(l.Objects, o)
		return true
	})
	if l.Next != "" && all {
		l.Left = left
	}
	return l
}

// stored lists from the store what the log does not go back to.
func (k *Kind) stored(ctx context.Context, q Query) (List, error) {
	prefix := Root + k.Path + "/"
	from := prefix + q.From
	page, err := k.cache.store.List(ctx, registry.Query{Prefix: prefix, From: from, Rev: q.Rev})
	if err != nil {
		return List{}, fmt.Errorf("list %s as of %d: %w", k.Path, q.Rev, err)
	}
	tree := btree.NewG(degree, less)
	for _, r := range page.Records {
		o, err := k.object(strings.TrimPrefix(r.Key, prefix), r.Value, r.Rev)
		if err != nil {
			return List{}, errors.Join(err, fmt.Errorf("at %s", r.Key))
		}
		tree.ReplaceOrInsert(o)
	}
	return k.walk(q, tree, q.Rev), nil
}
