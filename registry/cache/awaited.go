package cache

import (
	"bytes"
	"sync"
	"unique"

	"github.com/knarr-dev/knarr/apis"
)

// maxAwaited bounds what is awaited at once. A write that is never told, as
// when the store is read anew, would stay otherwise.
const maxAwaited = 4096

// awaited is what the server is writing, by what it can be selected by, so
// that it need not be decoded to find that out when the store tells of it.
type awaited struct {
	mu  sync.Mutex
	all map[string]*draft // by key
}

// A draft is what is about to be stored at a key.
type draft struct {
	value  []byte
	fields []unique.Handle[string]
}

// Await says that value, which encodes obj, is about to be stored at key. The
// caller calls forget if it was not.
func (k *Kind) Await(key string, value []byte, obj apis.Object) (forget func()) {
	k = k.latest()
	if len(k.fields) == 0 {
		return func() {}
	}
	d := &draft{value, k.fieldsOf(obj)}
	a := &k.awaited
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.all == nil || len(a.all) >= maxAwaited {
		a.all = map[string]*draft{}
	}
	a.all[key] = d
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.all[key] == d {
			delete(a.all, key)
		}
	}
}

// take returns the fields of what is stored at key as value, if it was
// awaited. That another revision has the same bytes does no harm: the fields
// are those of the bytes.
func (a *awaited) take(key string, value []byte) ([]unique.Handle[string], bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	d := a.all[key]
	if d == nil || !bytes.Equal(d.value, value) {
		return nil, false
	}
	delete(a.all, key)
	return d.fields, true
}
