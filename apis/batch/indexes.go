package batch

import (
	"fmt"
	"strconv"
	"strings"
)

// An interval is a range of indexes, as "3" or "5-7" writes one.
type interval struct{ first, last int32 }

func parseInterval(s string, completions int32) (interval, error) {
	parts := strings.Split(s, "-")
	if len(parts) > 2 {
		return interval{}, fmt.Errorf("the fragment %q violates the requirement that an index interval can have at most two parts separated by '-'", s)
	}
	var n [2]int
	for i, part := range parts {
		var err error
		if n[i], err = strconv.Atoi(part); err != nil {
			return interval{}, fmt.Errorf("cannot convert string to integer for index: %q", part)
		}
		if n[i] >= int(completions) {
			return interval{}, fmt.Errorf("too large index: %q", part)
		}
	}
	if len(parts) == 1 {
		n[1] = n[0]
	} else if n[0] >= n[1] {
		return interval{}, fmt.Errorf("non-increasing order, previous: %d, current: %d", n[0], n[1])
	}
	return interval{int32(n[0]), int32(n[1])}, nil //nolint:gosec // below completions
}

// count tells how many indexes s names, or what is wrong with it.
func count(s string, completions int32) (total int32, err error) {
	if s == "" {
		return 0, nil
	}
	last, first := int32(0), true
	for part := range strings.SplitSeq(s, ",") {
		i, err := parseInterval(part, completions)
		if err != nil {
			return 0, err
		}
		if !first && last >= i.first {
			return 0, fmt.Errorf("non-increasing order, previous: %d, current: %d", last, i.first)
		}
		total += i.last - i.first + 1
		last, first = i.last, false
	}
	return total, nil
}

// overlap finds an index that is in both a and b; what cannot be parsed is left out.
func overlap(a, b string, completions int32) (int32, bool) {
	as, bs := intervals(a, completions), intervals(b, completions)
	for len(as) > 0 && len(bs) > 0 {
		if as[0].first <= bs[0].last && bs[0].first <= as[0].last {
			return max(as[0].first, bs[0].first), true
		}
		if as[0].first <= bs[0].first {
			as = as[1:]
		} else {
			bs = bs[1:]
		}
	}
	return 0, false
}

func intervals(s string, completions int32) (out []interval) {
	for part := range strings.SplitSeq(s, ",") {
		if i, err := parseInterval(part, completions); err == nil {
			out = append(out, i)
		}
	}
	return out
}
