package storage

import (
	"strings"

	"github.com/knarr-dev/knarr/apis/check"
)

// Parameters are for a driver, which the server does not know; but there is
// an end to them.
const (
	maxParameters = 512
	maxBytes      = 256 << 10
)

// driver demands who makes volumes, or changes them.
func driver(at check.At, name string) {
	if at.Present(name) {
		at.Qualified(strings.ToLower(name))
	}
}

func parameters(at check.At, all map[string]string) {
	if len(all) > maxParameters {
		at.TooLong(maxParameters)
		return
	}
	if _, nameless := all[""]; nameless {
		at.Invalid("", "field can not be empty.")
	}
	if bytes(all) > maxBytes {
		at.TooLong(maxBytes)
	}
}

func bytes(all map[string]string) (n int) {
	for key, value := range all {
		n += len(key) + len(value)
	}
	return n
}
