package meta

import (
	"k8s.io/apimachinery/pkg/api/validation/path"

	"github.com/knarr-dev/knarr/apis/check"
)

// Segment demands a name that can stand in a path: what is asked of the names
// of kinds and objects that may be anybody's.
func Segment(at check.At, name string) {
	if at.Present(name) {
		at.Wrong(name, path.IsValidPathSegmentName(name))
	}
}
