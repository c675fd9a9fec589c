package logs

import (
	"bytes"
	"io"
)

const blockSize = 64 << 10

// tailOffset is where the last n lines of a log of the given size begin. The
// parts of a line count as the one line they make, and so does a last line
// that has not ended yet.
func tailOffset(f io.ReaderAt, size, n int64) (int64, error) {
	if n <= 0 {
		return size, nil
	}
	var (
		end   = size     // where the line in hand ends
		carry []byte     // the beginning of what was read so far, not yet known to be a line's
		lines = int64(0) // whole lines seen from the end
		first = true
	)
	for at := size; at > 0; {
		block := make([]byte, min(blockSize, at))
		at -= int64(len(block))
		if _, err := f.ReadAt(block, at); err != nil {
			return 0, err
		}
		carry = append(block, carry...)
		for {
			i := bytes.LastIndexByte(carry[:max(0, len(carry)-1)], '\n')
			if i < 0 && at > 0 {
				break // the line begins in an earlier block
			}
			begin := at + int64(i) + 1
			if l, err := parse(carry[i+1:]); first || err == nil && l.whole {
				if lines++; lines > n {
					return end, nil
				}
			}
			first, end, carry = false, begin, carry[:i+1]
			if i < 0 {
				break
			}
		}
	}
	return 0, nil
}
