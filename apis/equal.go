package apis

import (
	"bytes"

	"k8s.io/apimachinery/pkg/api/equality"
)

// Equal reports whether two values, or what two pointers point to, are the
// same to Kubernetes: k8s.io/apimachinery/pkg/api/equality, which takes 1 and
// 1000m for the same, and an empty list for none. What is encoded alike is the
// same, and that is found out in a tenth of the time.
func Equal(a, b any) bool {
	x, ok := a.(message)
	y, also := b.(message)
	return ok && also && alike(x, y) || equality.Semantic.DeepEqual(a, b)
}

// A message is a part of an object that has a protobuf form.
type message interface {
	Size() int
	Marshal() ([]byte, error)
}

func alike(a, b message) bool {
	if a.Size() != b.Size() {
		return false
	}
	x, err := a.Marshal()
	if err != nil {
		return false
	}
	y, err := b.Marshal()
	return err == nil && bytes.Equal(x, y)
}
