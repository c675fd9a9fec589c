package core

import (
	"cmp"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation/path"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-dev/knarr/apis"
)

var events = apis.Define(apis.Resource[*corev1.Event]{
	Plural: "events",
	Short:  []string{"ev"},

	Validate: validateEvent,
	Name:     pathSegment,
	Fields: map[string]func(*corev1.Event) string{
		"involvedObject.kind":            func(e *corev1.Event) string { return e.InvolvedObject.Kind },
		"involvedObject.namespace":       func(e *corev1.Event) string { return e.InvolvedObject.Namespace },
		"involvedObject.name":            func(e *corev1.Event) string { return e.InvolvedObject.Name },
		"involvedObject.uid":             func(e *corev1.Event) string { return string(e.InvolvedObject.UID) },
		"involvedObject.apiVersion":      func(e *corev1.Event) string { return e.InvolvedObject.APIVersion },
		"involvedObject.resourceVersion": func(e *corev1.Event) string { return e.InvolvedObject.ResourceVersion },
		"involvedObject.fieldPath":       func(e *corev1.Event) string { return e.InvolvedObject.FieldPath },
		"reason":                         func(e *corev1.Event) string { return e.Reason },
		"reportingComponent":             func(e *corev1.Event) string { return e.ReportingController },
		"source":                         func(e *corev1.Event) string { return cmp.Or(e.Source.Component, e.ReportingController) },
		"type":                           func(e *corev1.Event) string { return e.Type },
	},
	Columns: []apis.Column[*corev1.Event]{
		{Name: "Last Seen", Cell: func(e *corev1.Event, now time.Time) any {
			if e.Series != nil {
				return apis.Age(metav1.Time(e.Series.LastObservedTime), now)
			}
			return apis.Age(firstSet(e.LastTimestamp, e.FirstTimestamp, metav1.Time(e.EventTime)), now)
		}},
		{Name: "Type", Cell: func(e *corev1.Event, _ time.Time) any { return e.Type }},
		{Name: "Reason", Cell: func(e *corev1.Event, _ time.Time) any { return e.Reason }},
		{Name: "Object", Cell: func(e *corev1.Event, _ time.Time) any {
			kind := strings.ToLower(e.InvolvedObject.Kind)
			if e.InvolvedObject.Name == "" {
				return kind
			}
			return kind + "/" + e.InvolvedObject.Name
		}},
		{Name: "Subobject", Wide: true, Cell: func(e *corev1.Event, _ time.Time) any { return e.InvolvedObject.FieldPath }},
		{Name: "Source", Wide: true, Cell: func(e *corev1.Event, _ time.Time) any {
			source := cmp.Or(e.Source.Component, e.ReportingController)
			if host := cmp.Or(e.Source.Host, e.ReportingInstance); host != "" {
				source += ", " + host
			}
			return source
		}},
		{Name: "Message", Cell: func(e *corev1.Event, _ time.Time) any { return strings.TrimSpace(e.Message) }},
		{Name: "First Seen", Wide: true, Cell: func(e *corev1.Event, now time.Time) any {
			return apis.Age(firstSet(e.FirstTimestamp, metav1.Time(e.EventTime)), now)
		}},
		{Name: "Count", Wide: true, Cell: func(e *corev1.Event, _ time.Time) any {
			if e.Series != nil {
				return int64(e.Series.Count)
			}
			return int64(max(1, e.Count))
		}},
		{Name: "Name", Wide: true, Cell: func(e *corev1.Event, _ time.Time) any { return e.Name }},
	},
	Views:    []apis.View{eventsV1},
	Lifetime: apis.Lifetime[*corev1.Event]{TTL: time.Hour, UpsertsOnUpdate: true},
})

// pathSegment is all that is asked of an event's name.
func pathSegment(name string, prefix bool) []string {
	if prefix {
		return path.IsValidPathSegmentPrefix(name)
	}
	return path.IsValidPathSegmentName(name)
}

func firstSet(times ...metav1.Time) metav1.Time {
	for _, t := range times {
		if !t.IsZero() {
			return t
		}
	}
	return metav1.Time{}
}
