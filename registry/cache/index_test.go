package cache_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/knarr-dev/knarr/registry/cache"
	"github.com/knarr-dev/knarr/registry/memory"
)

// counting counts the objects that a selector has been shown.
type counting struct {
	labels.Selector
	shown *int
}

func (c counting) Matches(ls labels.Labels) bool {
	*c.shown++
	return c.Selector.Matches(ls)
}

// walked is what a list finds, found without any index.
func (w *world) walked(s cache.Selection, field string) (want []string) {
	w.Helper()
	names, all := w.list(cache.Query{})
	for i, o := range all.Objects {
		obj, err := o.Decode()
		if err != nil {
			w.Fatal(err)
		}
		pod := obj.(*corev1.Pod)
		on := field == "" || field == "spec.nodeName="+pod.Spec.NodeName
		if on && (s.Namespace == "" || s.Namespace == pod.Namespace) && s.Labels.Matches(labels.Set(pod.Labels)) {
			want = append(want, names[i])
		}
	}
	return want
}

// A list by a selector finds what a walk over everything finds, and looks at
// few other objects, however many there are.
func TestIndexed(t *testing.T) {
	w := start(t, memory.New())
	for i := range 600 {
		ns := fmt.Sprintf("ns%d", i%3)
		if i < 4 {
			ns = "small"
		}
		w.put(ns, fmt.Sprintf("p%03d", i), fmt.Sprintf("n%d", i%20), fmt.Sprintf("app%d", i/10))
	}
	w.delete("ns0/p009")
	w.fresh()
	for _, c := range []struct {
		ns, label, field string
		most             int // objects looked at
	}{
		{"", "app=app7", "", 10},
		{"", "app==app7", "", 10},
		{"", "app in (app0, app7)", "", 19},
		{"", "app in (app7, gone, app8)", "", 20},
		{"", "app in (app7, app8), app!=app8", "", 20},
		{"", "app in (app7, app8), app notin (app7)", "", 20},
		{"", "app=app7", "spec.nodeName=n11", 10},
		{"", "app notin (app7)", "spec.nodeName=n11", 30},
		{"", "app=gone", "", 0},
		{"", "gone=app7", "", 0},
		{"ns1", "app=app7", "", 10},
		{"small", "app=app0", "", 4},
		{"nowhere", "app=app7", "", 0},
		{"", "app", "", 599},
		{"", "!app", "", 599},
		{"ns1", "app!=app7", "", 200},
	} {
		s := sel(t, c.ns, c.label, c.field)
		want := w.walked(s, c.field)
		shown := 0
		s.Labels = counting{s.Labels, &shown}
		got, _ := w.list(cache.Query{Selection: s})
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s %s %s: %s", c.ns, c.label, c.field, d)
		}
		if shown > c.most {
			t.Errorf("%s %s %s: looks at %d objects, want %d at most", c.ns, c.label, c.field, shown, c.most)
		}
		var paged []string
		for q := (cache.Query{Selection: s, Limit: 3}); ; {
			page, l := w.list(q)
			paged = append(paged, page...)
			if q.From = l.Next; q.From == "" {
				break
			}
		}
		if d := cmp.Diff(want, paged); d != "" {
			t.Errorf("%s %s %s by pages: %s", c.ns, c.label, c.field, d)
		}
	}
}
