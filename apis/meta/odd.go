package meta

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-dev/knarr/apis/check"
)

// Odd reports whether a selector, nil for none, was stored in a form that is
// refused today. Its like may stay.
func Odd(s *metav1.LabelSelector) bool {
	at := check.New()
	Selector(at, s, false)
	return at.Found() > 0
}
