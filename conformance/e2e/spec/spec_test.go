package spec

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

var all = []Spec{
	{Name: "[sig-apps] Job should run [Conformance]", Area: "sig-apps", Conformance: true},
	{Name: "[sig-apps] Job should run twice [Serial] [Conformance]", Area: "sig-apps", Serial: true, Conformance: true},
	{Name: "[sig-node] Pods should (have) names. [Conformance]", Area: "sig-node", Conformance: true},
	{Name: "[sig-node] Pods should dance", Area: "sig-node"},
}

func names(specs []Spec) string {
	var b strings.Builder
	for _, s := range specs {
		fmt.Fprintf(&b, "%s: %s\n", s.Area, s.Name)
	}
	return b.String()
}

func TestRead(t *testing.T) {
	for _, c := range []struct{ name, text, want, err string }{
		{"plain", "# those of jobs\n\n[sig-apps] Job should run [Conformance]\r\n  [sig-node] x  \n", "3 [sig-apps] Job should run [Conformance] ()\n4 [sig-node] x ()\n", ""},
		{"columns", "area\tdifficulty\tspec\njobs\t1\t[sig-apps] Job\nnodes\t2\t[sig-node] x\n", "2 [sig-apps] Job (jobs)\n3 [sig-node] x (nodes)\n", ""},
		{"no area", "difficulty\tspec\n1\tx\n", "2 x ()\n", ""},
		{"no heading", "jobs\t[sig-apps] Job\n", "", "no heading says which"},
		{"short line", "area\tspec\njobs\n", "", "line 2 has 1 columns"},
		{"empty", "# nothing\n", "", "names no spec"},
	} {
		t.Run(c.name, func(t *testing.T) {
			list, err := Read(strings.NewReader(c.text))
			var got strings.Builder
			for _, l := range list {
				fmt.Fprintf(&got, "%d %s (%s)\n", l.Line, l.Name, l.Area)
			}
			if got.String() != c.want || fault(err, c.err) {
				t.Errorf("got %q, %v; want %q, %q", got.String(), err, c.want, c.err)
			}
		})
	}
}

func fault(err error, want string) bool {
	if err == nil || want == "" {
		return err != nil || want != ""
	}
	return !strings.Contains(err.Error(), want)
}

func TestSelect(t *testing.T) {
	job, pods := "[sig-apps] Job should run [Conformance]", "[sig-node] Pods should (have) names. [Conformance]"
	for _, c := range []struct {
		name      string
		choice    Choice
		want, err string
	}{
		{"all of conformance", Choice{}, names(all[:3]), ""},
		{"listed, once each", Choice{List: []Listed{{Name: pods, Area: "kubelet"}, {Name: "[sig-node] Pods should dance"}, {Name: pods}}}, "kubelet: " + pods + "\nsig-node: [sig-node] Pods should dance\n", ""},
		{"area", Choice{Area: "node"}, names(all[2:3]), ""},
		{"area of the list", Choice{List: []Listed{{Name: pods, Area: "kubelet"}, {Name: job, Area: "jobs"}}, Area: "jobs"}, "jobs: " + job + "\n", ""},
		{"focus", Choice{Focus: regexp.MustCompile("run$|twice")}, names(all[1:2]), ""},
		{"no such area", Choice{Area: "nope"}, "", `no spec is of area "nope"; there are sig-apps, sig-node`},
		{"nothing in focus", Choice{Focus: regexp.MustCompile("nope")}, "", "has a name that matches"},
		{"no such spec", Choice{List: []Listed{{Name: job}, {Name: "[sig-apps] Job should walk [Conformance]", Line: 7}}}, "", "1 of 2 names match no spec of the suite:\n  line 7: [sig-apps] Job should walk [Conformance]\n    nearest: " + job},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Select(all, c.choice)
			if names(got) != c.want || fault(err, c.err) {
				t.Errorf("got\n%s%v\nwant\n%s%s", names(got), err, c.want, c.err)
			}
		})
	}
}

// A pattern matches the whole of a name, not one that another begins or ends with.
func TestPatterns(t *testing.T) {
	for _, p := range Patterns([]Spec{all[2], {Name: "[sig-node] Pods"}}) {
		re := regexp.MustCompile(p)
		for name, want := range map[string]bool{
			"[sig-node] Pods should (have) names. [Conformance]": true,
			"[sig-node] Pods": true, "[sig-node] Pods should": false, "[x] [sig-node] Pods": false,
			"[sig-node] Pods should (have) namesx [Conformance]": false,
		} {
			if got := re.MatchString("Kubernetes e2e suite " + name); got != want {
				t.Errorf("%s matches %s: %t", p, name, got)
			}
		}
	}
	many := make([]Spec, 250)
	for i := range many {
		many[i].Name = fmt.Sprintf("spec %d", i)
	}
	if got := len(Patterns(many)); got != 3 {
		t.Errorf("%d patterns for %d specs", got, len(many))
	}
}

func TestSplit(t *testing.T) {
	parallel, serial := Split(all)
	if len(parallel) != 3 || len(serial) != 1 || !serial[0].Serial {
		t.Errorf("parallel %v, serial %v", parallel, serial)
	}
}
