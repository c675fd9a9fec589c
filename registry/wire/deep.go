package wire

// maxDepth is how deep a body may be nested: as deep as JSON and YAML.
const maxDepth = 10_000

// deep reports whether a message may be nested deeper than maxDepth, so that
// to read it could take more stack than there is.
func deep(msg []byte) bool {
	return len(msg) > 2*maxDepth && deeper(msg, maxDepth) // each level needs a tag and a length
}

// deeper reports whether fields are nested more than left deep. It takes
// whatever has a length for a message, since a text that looks like one is
// never that deep, and all that the generated code takes, which knows nothing
// of numbers that are too large.
func deeper(msg []byte, left int) bool {
	if left == 0 {
		return true
	}
	for len(msg) > 0 {
		tag, n := varint(msg)
		if n == 0 {
			return false
		}
		msg = msg[n:]
		size := 0
		switch tag & 7 {
		case 0:
			if _, size = varint(msg); size == 0 {
				return false
			}
		case 1:
			size = 8
		case 2:
			length, n := varint(msg)
			if n == 0 || length > uint64(len(msg)-n) {
				return false
			}
			size = n + int(length)
			if deeper(msg[n:size], left-1) {
				return true
			}
		case 5:
			size = 4
		case 3, 4: // a group's fields follow as if they were the message's own
		default:
			return false
		}
		if size > len(msg) {
			return false
		}
		msg = msg[size:]
	}
	return false
}

// varint reads a number and the bytes that it takes, 0 where there is none.
func varint(b []byte) (v uint64, n int) {
	for i, c := range b[:min(len(b), 10)] {
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			return v, i + 1
		}
	}
	return 0, 0
}
