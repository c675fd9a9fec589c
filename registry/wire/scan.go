package wire

import "unique"

// A Label is one label of an object. Its strings are shared by all objects.
type Label struct{ Key, Value unique.Handle[string] }

// NewLabel shares the strings of a label.
func NewLabel(key, value string) Label { return Label{unique.Make(key), unique.Make(value)} }

// Labels are the labels of an object in no order. They satisfy labels.Labels.
type Labels []Label

// Has reports whether there is a label called key.
func (ls Labels) Has(key string) bool {
	_, ok := ls.Lookup(key)
	return ok
}

// Get returns the value of the label called key, "" without one.
func (ls Labels) Get(key string) string {
	v, _ := ls.Lookup(key)
	return v
}

// Lookup returns the value of the label called key and whether there is one.
func (ls Labels) Lookup(key string) (string, bool) {
	for _, l := range ls {
		if l.Key.Value() == key {
			return l.Value.Value(), true
		}
	}
	return "", false
}

// Metadata is the message of the object's metadata.
func (o *Object) Metadata() (meta []byte) {
	// A message that does not parse has no metadata: Decode tells why.
	_ = eachField(o.Raw, func(num, typ int, val []byte) bool {
		if num == 1 && typ == 2 {
			meta = val
		}
		return meta == nil
	})
	return meta
}

// Labels reads the object's labels from its message.
func (o *Object) Labels() (ls Labels) {
	if o.codec != nil {
		return textLabels(o.Raw)
	}
	const labels = 11 // in ObjectMeta
	_ = eachField(o.Metadata(), func(num, typ int, val []byte) bool {
		if num == labels && typ == 2 {
			ls = append(ls, mapEntry(val))
		}
		return num <= labels
	})
	return ls
}

func mapEntry(entry []byte) Label {
	var kv [2]string
	_ = eachField(entry, func(num, _ int, val []byte) bool {
		if num == 1 || num == 2 {
			kv[num-1] = string(val)
		}
		return true
	})
	return NewLabel(kv[0], kv[1])
}
