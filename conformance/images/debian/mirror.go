package debian

import (
	"os"
	"path/filepath"
	"strings"
)

// public is where Debian is to be had by anybody.
const public = "http://deb.debian.org/debian"

// Mirror is where the machine's own apt has Debian from, by the lists of
// sources in a folder such as /etc/apt; where they name none, the public one.
func Mirror(apt string) string {
	files := []string{filepath.Join(apt, "sources.list")}
	for _, ending := range []string{"*.sources", "*.list"} {
		more, err := filepath.Glob(filepath.Join(apt, "sources.list.d", ending))
		if err == nil { // the pattern is right
			files = append(files, more...)
		}
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // apt passes over it too
		}
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(strings.TrimSpace(line), "#") {
				continue
			}
			for _, word := range strings.Fields(line) {
				word = strings.TrimSuffix(word, "/")
				if strings.Contains(word, "://") && strings.HasSuffix(word, "/debian") {
					return word
				}
			}
		}
	}
	return public
}
