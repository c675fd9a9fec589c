package volume

import (
	"io/fs"
	"syscall"
)

// group is the group that a file belongs to; less than zero where that cannot
// be told.
func group(info fs.FileInfo) int {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Gid)
	}
	return -1
}
