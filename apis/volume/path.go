package volume

import (
	"slices"
	"strings"

	"github.com/knarr-dev/knarr/apis/check"
)

// Inside demands a path that leads down from where it starts.
func Inside(at check.At, path string) {
	if strings.HasPrefix(path, "/") {
		at.Invalid(path, "must be a relative path")
	}
	noBacksteps(at, path)
}

// File demands a path inside a volume by a name that the system does not use itself.
func File(at check.At, path string) {
	Inside(at, path)
	if strings.HasPrefix(path, "..") && !strings.HasPrefix(path, "../") {
		at.Invalid(path, "must not start with '..'")
	}
}

func noBacksteps(at check.At, path string) {
	if Backsteps(path) {
		at.Invalid(path, "must not contain '..'")
	}
}

// Backsteps reports whether a path has a step up in it.
func Backsteps(path string) bool { return slices.Contains(strings.Split(path, "/"), "..") }

// mode demands the permissions of a file; nil is none.
func mode(at check.At, m *int32) {
	if m != nil && (*m < 0 || *m > 0o777) {
		at.Invalid(*m, "must be a number between 0 and 0777 (octal), both inclusive")
	}
}
