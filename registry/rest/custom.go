package rest

import (
	"slices"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/registry/cache"
	"github.com/knarr-dev/knarr/registry/patch"
	"github.com/knarr-dev/knarr/registry/wire"
)

// Custom is what one version of a custom kind is made of. Each version is a
// kind of its own, with hooks of its own, whose objects are those that all of
// them share: reading one makes it be of the version.
type Custom struct {
	Definition *apis.Definition
	Wire       *wire.Kind
	Objects    *cache.Kind
	Owners     *patch.Owners
	Between    patch.Forms // converts to and from the other versions
}

// Custom returns a kind that SetCustom can serve.
func (s *Service) Custom(c Custom) *Kind {
	k := &Kind{Definition: c.Definition, Objects: c.Objects, service: s, owners: c.Owners, between: c.Between}
	k.forms = []*Form{{Kind: k, Wire: c.Wire}}
	k.forms[0].account()
	return k
}

// SetCustom serves kinds besides those that have been added, in the place of
// those that were set before. Of several versions of a kind the first is the
// one by which other parts of the server know it.
func (s *Service) SetCustom(kinds []*Kind) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.table.Load()
	s.table.Store(newTable(slices.Concat(old.order[:old.builtin], kinds), old.builtin))
}

// FieldOf is the cache's name of a field of a version of a custom kind.
func FieldOf(version, name string) string { return version + "/" + name }

// Decode is an object of the cache as one of kind k.
func (k *Kind) Decode(o *cache.Object) (apis.Object, error) { return o.In(k.Main().Wire).Decode() }

// ready makes many objects of the cache be read at little cost: those of
// another version are converted all at once.
func (k *Kind) ready(objs []*cache.Object) ([]*cache.Object, error) {
	if k.Custom == nil || len(objs) == 0 {
		return objs, nil
	}
	texts := make([][]byte, len(objs))
	for i, o := range objs {
		texts[i] = o.Raw
	}
	w := k.Main().Wire
	made, err := w.Ready(texts)
	if err != nil || made == nil {
		return objs, err
	}
	out := make([]*cache.Object, len(objs))
	for i, o := range objs {
		out[i] = o.As(w, made[i])
	}
	return out, nil
}
