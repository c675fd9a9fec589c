package ctrl

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/knarr-dev/knarr/apis/podspec"
)

// A History is the pod templates that an object had, each in a
// ControllerRevision, the oldest first.
type History []*appsv1.ControllerRevision

// HistoryOf puts revisions in order.
func HistoryOf(revisions []*appsv1.ControllerRevision) History {
	h := slices.Clone(revisions)
	slices.SortFunc(h, func(a, b *appsv1.ControllerRevision) int {
		return cmp.Or(cmp.Compare(a.Revision, b.Revision), a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	return h
}

// Next is the number of a revision newer than all.
func (h History) Next() int64 {
	if len(h) == 0 {
		return 1
	}
	return h[len(h)-1].Revision + 1
}

// Of returns the revisions that hold t: those with the very bytes of it, or
// where there are none, those that mean the same with what is set by default.
func (h History) Of(t *corev1.PodTemplateSpec) (same History) {
	data := TemplateData(t)
	for _, r := range h {
		if bytes.Equal(r.Data.Raw, data) {
			same = append(same, r)
		}
	}
	if len(same) > 0 || len(h) == 0 {
		return same
	}
	full := defaulted(t)
	for _, r := range h {
		if old, err := TemplateIn(r); err == nil && equality.Semantic.DeepEqual(defaulted(old), full) {
			same = append(same, r)
		}
	}
	return same
}

func defaulted(t *corev1.PodTemplateSpec) *corev1.PodTemplateSpec {
	t = t.DeepCopy()
	podspec.Default(&t.Spec)
	return t
}

// TemplateData is what a revision holds of t: the patch that brings it back.
// Its bytes are upstream's, so that either can go on where the other stopped.
func TemplateData(t *corev1.PodTemplateSpec) []byte {
	m := map[string]any{}
	if err := json.Unmarshal([]byte(JSON(t)), &m); err != nil {
		panic(err)
	}
	m["$patch"] = "replace"
	return []byte(JSON(map[string]any{"spec": map[string]any{"template": m}}))
}

// TemplateIn is the template that r holds.
func TemplateIn(r *appsv1.ControllerRevision) (*corev1.PodTemplateSpec, error) {
	var data struct {
		Spec struct {
			Template corev1.PodTemplateSpec `json:"template"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(r.Data.Raw, &data); err != nil {
		return nil, fmt.Errorf("read revision %s: %w", KeyOf(r), err)
	}
	return &data.Spec.Template, nil
}
