// Package spec says which specs of the suite a run is about: it reads lists
// of their names and matches them with what the suite has. It runs nothing.
package spec

import (
	"bufio"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// A Spec is one of the suite.
type Spec struct {
	Name        string `json:"name"`
	Area        string `json:"area"`
	Serial      bool   `json:"serial,omitempty"`
	Conformance bool   `json:"conformance,omitempty"`
}

// A Listed is a line of a list: a spec's name, and the area that the list
// puts it in, where it does.
type Listed struct {
	Name, Area string
	Line       int
}

// Read reads a list: a name a line, or columns with a heading of which one is
// "spec" and another may be "area". Empty lines and those that begin with #
// do not count.
func Read(r io.Reader) (list []Listed, err error) {
	lines := bufio.NewScanner(r)
	name, area, headed := 0, -1, false
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimRight(lines.Text(), "\r")
		if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Split(line, "\t")
		if at := slices.Index(fields, "spec"); at >= 0 && len(list) == 0 {
			name, area, headed = at, slices.Index(fields, "area"), true
			continue
		}
		if name >= len(fields) {
			return nil, fmt.Errorf("line %d has %d columns, and the name should be in column %d", n, len(fields), name+1)
		}
		if !headed && len(fields) > 1 {
			return nil, fmt.Errorf("line %d has %d columns, and no heading says which is the spec", n, len(fields))
		}
		l := Listed{Name: strings.TrimSpace(fields[name]), Line: n}
		if area >= 0 && area < len(fields) {
			l.Area = fields[area]
		}
		list = append(list, l)
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("names no spec")
	}
	return list, nil
}

// A Choice is what a run is about. What is empty narrows nothing down.
type Choice struct {
	List  []Listed
	Area  string
	Focus *regexp.Regexp
}

// Select chooses from the suite: the listed specs, or all of conformance
// where nothing is listed, and of them those of the area and in focus. A name
// that is not in the suite is an error, and so is a choice of nothing.
func Select(all []Spec, c Choice) (chosen []Spec, err error) {
	if len(c.List) == 0 {
		for _, s := range all {
			if s.Conformance {
				chosen = append(chosen, s)
			}
		}
	} else if chosen, err = listed(all, c.List); err != nil {
		return nil, err
	}
	areas := map[string]bool{}
	for _, s := range chosen {
		areas[s.Area] = true
	}
	chosen = slices.DeleteFunc(chosen, func(s Spec) bool {
		return c.Area != "" && s.Area != c.Area && strings.TrimPrefix(s.Area, "sig-") != c.Area ||
			c.Focus != nil && !c.Focus.MatchString(s.Name)
	})
	switch {
	case len(chosen) > 0:
		return chosen, nil
	case c.Area != "" && c.Focus == nil:
		return nil, fmt.Errorf("no spec is of area %q; there are %s", c.Area, strings.Join(sorted(areas), ", "))
	default:
		return nil, fmt.Errorf("no spec of area %q has a name that matches %q", c.Area, fmt.Sprint(c.Focus))
	}
}

func listed(all []Spec, list []Listed) (chosen []Spec, err error) {
	byName := map[string]Spec{}
	for _, s := range all {
		byName[s.Name] = s
	}
	var unknown []string
	seen := map[string]bool{}
	for _, l := range list {
		s, there := byName[l.Name]
		if !there {
			unknown = append(unknown, fmt.Sprintf("  line %d: %s\n    nearest: %s", l.Line, l.Name, nearest(all, l.Name)))
			continue
		}
		if seen[l.Name] {
			continue
		}
		seen[l.Name] = true
		if l.Area != "" {
			s.Area = l.Area
		}
		chosen = append(chosen, s)
	}
	if len(unknown) > 0 {
		return nil, fmt.Errorf("%d of %d names match no spec of the suite:\n%s", len(unknown), len(list), strings.Join(unknown, "\n"))
	}
	return chosen, nil
}

// nearest is the spec that has most words of the name, and fewest others.
func nearest(all []Spec, name string) string {
	words := strings.Fields(name)
	best, most := "none", 0
	for _, s := range all {
		score := 0
		has := strings.Fields(s.Name)
		for _, w := range words {
			if slices.Contains(has, w) {
				score += 4
			}
		}
		if score -= len(has); score > most {
			best, most = s.Name, score
		}
	}
	return best
}

// Area is the area of a spec that no list puts in one: the group of people
// that its name begins with.
func Area(name string) string {
	if rest, is := strings.CutPrefix(name, "["); is {
		if sig, _, is := strings.Cut(rest, "]"); is {
			return sig
		}
	}
	return "other"
}

// Patterns are expressions that match the specs' names and no others, a
// number of them in each, for a command's argument must not grow too long.
func Patterns(specs []Spec) (patterns []string) {
	const each = 100
	for chunk := range slices.Chunk(specs, each) {
		var names []string
		for _, s := range chunk {
			names = append(names, regexp.QuoteMeta(s.Name))
		}
		// Ginkgo puts the suite's name before the spec's.
		patterns = append(patterns, "^[^\\[]*(?:"+strings.Join(names, "|")+")$")
	}
	return patterns
}

// Split parts the specs that may run beside others from those that may not.
func Split(specs []Spec) (parallel, serial []Spec) {
	for _, s := range specs {
		if s.Serial {
			serial = append(serial, s)
		} else {
			parallel = append(parallel, s)
		}
	}
	return parallel, serial
}

func sorted(set map[string]bool) (keys []string) {
	for k := range set {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
