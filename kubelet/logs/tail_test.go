package logs

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// TestTailIsSuffix holds the search from the end against a count from the
// beginning, over logs that span blocks.
func TestTailIsSuffix(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var log bytes.Buffer
		var begins []int // of whole lines
		inside := false
		for range rnd.IntN(60) {
			if !inside {
				begins = append(begins, log.Len())
			}
			tag := "PF"[rnd.IntN(2)]
			inside = tag == 'P'
			fmt.Fprintf(&log, "2024-01-01T00:00:01Z stdout %c %s\n", tag, strings.Repeat("x", rnd.IntN(20000)))
		}
		for n := range len(begins) + 2 {
			want := log.Len()
			if n > 0 && len(begins) > 0 {
				want = begins[max(0, len(begins)-n)]
			}
			got, err := tailOffset(bytes.NewReader(log.Bytes()), int64(log.Len()), int64(n))
			if err != nil || got != int64(want) {
				t.Fatalf("last %d of %d lines begin at %d, want %d (%v)", n, len(begins), got, want, err)
			}
		}
	}
}
