package job

import (
	"slices"
	"strconv"
	"strings"
)

// A span is the indexes from first to last.
type span struct{ first, last int }

// Indexes are spans in order, with a gap before each but the first.
type indexes []span

// parse reads "1,3-5". What is not below limit, or cannot be read, is left out.
func parse(text string, limit int) (out indexes) {
	for part := range strings.SplitSeq(text, ",") {
		first, last, isSpan := strings.Cut(part, "-")
		a, err := strconv.Atoi(first)
		if err != nil || a >= limit {
			continue
		}
		b := a
		if isSpan {
			if b, err = strconv.Atoi(last); err != nil {
				continue
			}
		}
		out = out.with(indexes{{a, min(b, limit-1)}})
	}
	return out
}

// String is the form that parse reads, and that a Job's status has.
func (ix indexes) String() string {
	var parts []string
	for _, s := range ix {
		switch s.last - s.first {
		case 0:
			parts = append(parts, strconv.Itoa(s.first))
		case 1:
			parts = append(parts, strconv.Itoa(s.first), strconv.Itoa(s.last))
		default:
			parts = append(parts, strconv.Itoa(s.first)+"-"+strconv.Itoa(s.last))
		}
	}
	return strings.Join(parts, ",")
}

func (ix indexes) len() (n int) {
	for _, s := range ix {
		n += s.last - s.first + 1
	}
	return n
}

func (ix indexes) has(i int) bool {
	at, found := slices.BinarySearchFunc(ix, i, func(s span, i int) int { return s.first - i })
	return found || at > 0 && ix[at-1].last >= i
}

// with is all that is in either.
func (ix indexes) with(other indexes) (out indexes) {
	all := slices.Concat(ix, other)
	slices.SortFunc(all, func(a, b span) int { return a.first - b.first })
	for _, s := range all {
		if n := len(out); n > 0 && s.first <= out[n-1].last+1 {
			out[n-1].last = max(out[n-1].last, s.last)
			continue
		}
		out = append(out, s)
	}
	return out
}

// of is the indexes in list.
func of(list []int) (out indexes) {
	for _, i := range list {
		out = append(out, span{i, i})
	}
	return indexes{}.with(out)
}

// missing are the first n below limit that are not in ix.
func (ix indexes) missing(n, limit int) (out []int) {
	next := 0
	for _, s := range append(slices.Clone(ix), span{limit, limit}) {
		for ; next < s.first && next < limit && len(out) < n; next++ {
			out = append(out, next)
		}
		next = max(next, s.last+1)
	}
	return out
}

// common is how many are in both.
func (ix indexes) common(other indexes) (n int) {
	for _, a := range ix {
		for _, b := range other {
			n += max(0, min(a.last, b.last)-max(a.first, b.first)+1)
		}
	}
	return n
}
