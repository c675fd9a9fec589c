package debian

import (
	"os"
	"path/filepath"
	"testing"
)

func TestMirror(t *testing.T) {
	for _, tt := range []struct{ name, file, text, want string }{
		{"nothing", "other", "", public},
		{"a line", "sources.list", "# deb http://old/debian x main\ndeb [arch=amd64] http://a.example/debian/ bookworm main\n", "http://a.example/debian"},
		{"a paragraph", "sources.list.d/debian.sources", "Types: deb\nURIs: https://b.example/debian\nSuites: trixie\n", "https://b.example/debian"},
		{"only others", "sources.list.d/x.list", "deb https://c.example/apt x main\ndeb http://d.example/debian-security x main\n", public},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.MkdirAll(filepath.Join(dir, "sources.list.d"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, tt.file), []byte(tt.text), 0o644); err != nil {
				t.Fatal(err)
			}
			if got := Mirror(dir); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}
