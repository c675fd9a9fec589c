package kindtest

import (
	"strconv"
	"strings"
)

// steps takes a place apart: names of fields and keys are strings, indexes
// of lists ints.
func steps(place string) (all []any) {
	for place != "" {
		switch {
		case strings.HasPrefix(place, "['"):
			key, rest, _ := strings.Cut(place[2:], "']")
			all, place = append(all, key), rest
		case place[0] == '[':
			index, rest, _ := strings.Cut(place[1:], "]")
			i, err := strconv.Atoi(index)
			if err != nil {
				panic("index " + index)
			}
			all, place = append(all, i), rest
		case place[0] == '.':
			place = place[1:]
		default:
			end := strings.IndexAny(place, ".[")
			if end < 0 {
				end = len(place)
			}
			all, place = append(all, place[:end]), place[end:]
		}
	}
	return all
}

// at is what stands at a place of v, nil where nothing does.
func at(v any, place []any) any {
	for _, step := range place {
		switch step := step.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[step]
		case int:
			l, _ := v.([]any)
			if step >= len(l) {
				return nil
			}
			v = l[step]
		}
	}
	return v
}

// set puts something at a place of v, which it may change, and takes away
// what is there where something is nil.
func set(v any, place []any, something any) any {
	if len(place) == 0 {
		return something
	}
	switch step := place[0].(type) {
	case string:
		m, _ := v.(map[string]any)
		if m == nil {
			m = map[string]any{}
		}
		if len(place) == 1 && something == nil {
			delete(m, step)
		} else {
			m[step] = set(m[step], place[1:], something)
		}
		return m
	case int:
		l, _ := v.([]any)
		for len(l) <= step {
			l = append(l, nil)
		}
		l[step] = set(l[step], place[1:], something)
		return l
	}
	return v
}
