package meta

import (
	"k8s.io/apimachinery/pkg/api/validate/content"

	"github.com/knarr-dev/knarr/apis/check"
)

// PathSegment is all that is asked of some names, or prefixes of such: that
// they can stand in a path.
func PathSegment(name string, prefix bool) []string {
	if prefix {
		return content.IsPathSegmentPrefix(name)
	}
	return content.IsPathSegmentName(name)
}

// Segment demands a name that can stand in a path: what is asked of the names
// of kinds and objects that may be anybody's.
func Segment(at check.At, name string) {
	if at.Present(name) {
		at.Wrong(name, content.IsPathSegmentName(name))
	}
}
