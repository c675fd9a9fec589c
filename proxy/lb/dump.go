package lb

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// String lists the table for people and for examples: each frontend, how it
// differs from a plain one, and its backends. The IDs, which mean nothing
// outside, are not shown.
func (t Table) String() string {
	var b strings.Builder
	for _, f := range slices.SortedFunc(maps.Keys(t.Frontends), Frontend.compare) {
		e := t.Frontends[f]
		s := t.Services[e.Service]
		fmt.Fprintf(&b, "%v %v%v%v\n", f.Proto, f.Addr, e.Flags, s.terms(e.Flags))
		for i, be := range s.Backends {
			fmt.Fprintf(&b, "  %v%s\n", be.Addr, s.note(i))
		}
	}
	return b.String()
}

var flagNames = []string{"inside=local", "outside=local", "nodeport", "filtered", "node-allowed"}

// String names the flags, each after a space.
func (f Flags) String() string {
	var b strings.Builder
	for i, name := range flagNames {
		if f&(1<<i) != 0 {
			b.WriteString(" " + name)
		}
	}
	return b.String()
}

// terms tells what else matters to clients of a frontend with these flags,
// each thing after a space.
func (s Service) terms(flags Flags) string {
	var b strings.Builder
	if s.Affinity > 0 {
		fmt.Fprintf(&b, " affinity=%ds", s.Affinity)
	}
	if flags&Filtered != 0 {
		for _, p := range s.Sources {
			fmt.Fprintf(&b, " from=%v", p)
		}
	}
	return b.String()
}

// note says what there is to know about the service's backend i.
func (s Service) note(i int) string {
	var words []string
	if s.Backends[i].Local {
		words = append(words, "here")
	}
	if i >= s.Cluster {
		words = append(words, "local-only")
	} else if i < len(s.Backends)-s.Local && s.Local > 0 {
		words = append(words, "cluster-only")
	}
	if words == nil {
		return ""
	}
	return " " + strings.Join(words, " ")
}
