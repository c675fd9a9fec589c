package server

import (
	"bytes"
	"errors"
	"sync"
	"testing"
)

// keeper keeps what it was last given without copying it, as a connection may
// that has failed, and fails from the second write on.
type keeper struct{ kept []byte }

func (k *keeper) Write(p []byte) (int, error) {
	if k.kept != nil {
		k.kept = p
		return 0, errors.New("gone")
	}
	k.kept = p
	return len(p), nil
}

// TestChunks holds that lists that are sent at once do not mix, though they
// share buffers, and that a buffer is not used again that may still be read.
func TestChunks(t *testing.T) {
	text := func(c byte, n int) []byte { return bytes.Repeat([]byte{c}, n) }
	var wg sync.WaitGroup
	for _, c := range []byte("abcdefgh") {
		wg.Go(func() {
			for _, n := range []int{1, 10, 1000} {
				var out bytes.Buffer
				joinJSON(&out, n*1000, text('[', 1), [][]byte{text(c, n*300), text(c, n*400)})
				want := "[" + string(text(c, n*300)) + "," + string(text(c, n*400)) + listClose
				if out.String() != want {
					t.Errorf("%c: a list of %d bytes is not what was put together", c, len(want))
				}
			}
		})
	}
	wg.Wait()
	k := &keeper{}
	joinJSON(k, 3*chunk, nil, [][]byte{text('x', chunk), text('y', chunk), text('z', chunk)})
	kept := bytes.Clone(k.kept)
	for range 10 {
		joinJSON(&bytes.Buffer{}, 3*chunk, nil, [][]byte{text('0', chunk), text('1', chunk)})
	}
	if !bytes.Equal(kept, k.kept) {
		t.Error("a buffer that a writer has failed on was used again")
	}
}
