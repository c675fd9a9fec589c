package debian

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	got, err := parse(`'http://deb.debian.org/debian/pool/main/c/curl/curl_8.14.1-2_amd64.deb' curl_8.14.1-2_amd64.deb 269604 MD5Sum:c1
'http://deb.debian.org/debian/pool/main/b/bash/bash_5.2.37-2%2bb5_amd64.deb' bash_5.2.37-2+b5_amd64.deb 1499344 SHA256:b2
`)
	if err != nil || len(got) != 2 || got[0] != (Package{"bash_5.2.37-2+b5_amd64.deb", "SHA256:b2"}) || got[1].File != "curl_8.14.1-2_amd64.deb" {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := parse("E: Unable to locate package nope\n"); err == nil || !strings.Contains(err.Error(), "nope") {
		t.Errorf("of no package: %v", err)
	}
}

func TestWanted(t *testing.T) {
	for name, want := range map[string]bool{
		"usr/bin/dig": true, "usr/share/doc": false, "usr/share/doc/curl/README": false, "usr/share/documents": true, "usr/lib/os-release": false,
	} {
		if wanted(name) != want {
			t.Errorf("%s is wanted: %t", name, !want)
		}
	}
}

// Apt is asked once what a package depends on, and again after its lists changed.
func TestClosureKept(t *testing.T) {
	bin, dir := t.TempDir(), t.TempDir()
	apt := `#!/bin/sh
case "$*" in
*update*) touch ` + dir + `/lists/x_Packages ;;
*--print-uris*) echo asked >>` + dir + `/asked; echo "'http://x/a.deb' a.deb 1 SHA256:1" ;;
esac
`
	if err := os.WriteFile(filepath.Join(bin, "apt-get"), []byte(apt), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	asked := func(refresh bool) int {
		s := &Source{Dir: dir, Mirror: "http://x", Release: "y", Refresh: refresh}
		ps, err := s.Closure(t.Context(), "a", "b")
		if err != nil || len(ps) != 1 || ps[0].File != "a.deb" {
			t.Fatalf("got %v, %v", ps, err)
		}
		text, err := os.ReadFile(filepath.Join(dir, "asked"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(text), "asked")
	}
	for i, c := range []struct {
		refresh bool
		times   int
	}{{false, 1}, {false, 1}, {true, 2}, {false, 2}} {
		if got := asked(c.refresh); got != c.times {
			t.Errorf("after %d closures apt was asked %d times, want %d", i+1, got, c.times)
		}
	}
}
