package cache

import (
	"slices"
	"sync"
)

// textBudget is how many bytes of JSON the cache keeps beside the objects.
const textBudget = 64 << 20

// texts bounds the JSON that is kept with objects: what was made first goes
// first.
type texts struct {
	mu   sync.Mutex
	made []*Object // some of which have lost their text since
	live int
	size int
}

// JSON is the object as an item of a list has it, kept for the next who asks.
func (k *Kind) JSON(o *Object) ([]byte, error) {
	text, made, err := o.JSON()
	if made {
		k.cache.texts.add(o, len(text))
	}
	return text, err
}

func (t *texts) add(o *Object, size int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.made) > 2*t.live+1000 {
		t.made = slices.DeleteFunc(t.made, func(o *Object) bool { return !o.HasJSON() })
	}
	t.made = append(t.made, o)
	t.live++
	t.size += size
	for t.size > textBudget && len(t.made) > 1 {
		t.lose(t.made[0])
		t.made = t.made[1:]
	}
}

// drop forgets the text of an object that is not current any more.
func (t *texts) drop(o *Object) {
	if !o.HasJSON() {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lose(o)
}

func (t *texts) lose(o *Object) {
	if n := o.DropJSON(); n > 0 {
		t.size -= n
		t.live--
	}
}
