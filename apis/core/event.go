package core

import (
	"cmp"
	"fmt"
	"reflect"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
)

var events = apis.Define(apis.Resource[*corev1.Event]{
	Plural: "events",
	Short:  []string{"ev"},

	Validate: validateEvent,
	Name:     meta.PathSegment,
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

func firstSet(times ...metav1.Time) metav1.Time {
	for _, t := range times {
		if !t.IsZero() {
			return t
		}
	}
	return metav1.Time{}
}

// eventsV1 shows events as group events.k8s.io does: the same fields, most of
// them under other names.
var eventsV1 = apis.View{
	GroupVersion: eventsv1.SchemeGroupVersion,

	New:  func() apis.Object { return &eventsv1.Event{} },
	Fill: func(view, stored apis.Object) { fillEvent(view.(*eventsv1.Event), stored.(*corev1.Event)) },
	Read: func(stored, view apis.Object) { readEvent(stored.(*corev1.Event), view.(*eventsv1.Event)) },

	Validate: validateEventV1,

	Fields: map[string]string{
		"involvedObject.kind":            "regarding.kind",
		"involvedObject.namespace":       "regarding.namespace",
		"involvedObject.name":            "regarding.name",
		"involvedObject.uid":             "regarding.uid",
		"involvedObject.apiVersion":      "regarding.apiVersion",
		"involvedObject.resourceVersion": "regarding.resourceVersion",
		"involvedObject.fieldPath":       "regarding.fieldPath",
		"reason":                         "reason",
		"reportingComponent":             "reportingController",
		"type":                           "type",
	},
}

func fillEvent(view *eventsv1.Event, e *corev1.Event) {
	*view = eventsv1.Event{
		ObjectMeta:               e.ObjectMeta,
		EventTime:                e.EventTime,
		ReportingController:      e.ReportingController,
		ReportingInstance:        e.ReportingInstance,
		Action:                   e.Action,
		Reason:                   e.Reason,
		Regarding:                e.InvolvedObject,
		Related:                  e.Related,
		Note:                     e.Message,
		Type:                     e.Type,
		DeprecatedSource:         e.Source,
		DeprecatedFirstTimestamp: e.FirstTimestamp,
		DeprecatedLastTimestamp:  e.LastTimestamp,
		DeprecatedCount:          e.Count,
	}
	if s := e.Series; s != nil {
		view.Series = &eventsv1.EventSeries{Count: s.Count, LastObservedTime: s.LastObservedTime}
	}
}

func readEvent(e *corev1.Event, view *eventsv1.Event) {
	*e = corev1.Event{
		ObjectMeta:          view.ObjectMeta,
		EventTime:           view.EventTime,
		ReportingController: view.ReportingController,
		ReportingInstance:   view.ReportingInstance,
		Action:              view.Action,
		Reason:              view.Reason,
		InvolvedObject:      view.Regarding,
		Related:             view.Related,
		Message:             view.Note,
		Type:                view.Type,
		Source:              view.DeprecatedSource,
		FirstTimestamp:      view.DeprecatedFirstTimestamp,
		LastTimestamp:       view.DeprecatedLastTimestamp,
		Count:               view.DeprecatedCount,
	}
	if s := view.Series; s != nil {
		e.Series = &corev1.EventSeries{Count: s.Count, LastObservedTime: s.LastObservedTime}
	}
}

func validateEvent(e, _ *corev1.Event) field.ErrorList {
	at := check.New()
	eventRules(at, e, "reportingComponent")
	return at.Errors()
}

// validateEventV1 holds an event of events.k8s.io to more: it is made once,
// and only counted afterwards.
func validateEventV1(stored, was apis.Object) field.ErrorList {
	at, e := check.New(), stored.(*corev1.Event)
	for i, f := range e.Finalizers {
		at.Add(meta.Finalizer(at.Dot("metadata.finalizers").Index(i).Path(), f)...)
	}
	eventRules(at, e, "reportingController")
	if old, ok := was.(*corev1.Event); ok && old != nil {
		eventChanges(at, e, old)
		return at.Errors()
	}
	if e.Name != "" {
		meta.Name(at.Dot("metadata.name"), e.Name)
	}
	eventSeries(at, e)
	if e.EventTime.IsZero() {
		at.Dot("eventTime").Required("")
	}
	if e.Type != corev1.EventTypeNormal && e.Type != corev1.EventTypeWarning {
		at.Dot("type").Invalid("", fmt.Sprintf("has invalid value: %v", e.Type))
	}
	for _, old := range []struct {
		name  string
		unset bool
	}{
		{"firstTimestamp", e.FirstTimestamp.IsZero()},
		{"lastTimestamp", e.LastTimestamp.IsZero()},
		{"count", e.Count == 0},
		{"source", e.Source == corev1.EventSource{}},
	} {
		if !old.unset {
			at.Dot(old.name).Invalid("", "needs to be unset")
		}
	}
	return at.Errors()
}

// eventRules hold for events of both groups. One with the time of the event
// is of the newer sort, and must tell more. reporter is what the group calls
// the controller.
func eventRules(at check.At, e *corev1.Event, reporter string) {
	const elsewhere = "does not match event.namespace"
	about, in := e.InvolvedObject.Namespace, e.Namespace
	if e.EventTime.IsZero() {
		if about == "" && in != metav1.NamespaceNone && in != metav1.NamespaceDefault || about != "" && in != about {
			at.Dot("involvedObject.namespace").Invalid(about, elsewhere)
		}
	} else {
		if about == "" && in != metav1.NamespaceDefault && in != metav1.NamespaceSystem {
			at.Dot("involvedObject.namespace").Invalid(about, elsewhere)
		}
		at.Dot(reporter).Present(e.ReportingController)
		at.Dot(reporter).Qualified(e.ReportingController)
		limited := func(name, s string, limit int, required bool) {
			if at := at.Dot(name); required {
				at.Present(s)
			}
			if len(s) > limit {
				at.Dot(name).Invalid("", fmt.Sprintf("can have at most %d characters", limit))
			}
		}
		limited("reportingInstance", e.ReportingInstance, 128, true)
		limited("action", e.Action, 128, true)
		limited("reason", e.Reason, 128, true)
		limited("message", e.Message, 1024, false)
	}
	at.Dot("namespace").Subdomain(in)
}

func eventSeries(at check.At, e *corev1.Event) {
	if e.Series == nil {
		return
	}
	if e.Series.Count < 2 {
		at.Dot("series.count").Invalid("", "should be at least 2")
	}
	if e.Series.LastObservedTime.IsZero() {
		at.Dot("series.lastObservedTime").Required("")
	}
}

func eventChanges(at check.At, e, old *corev1.Event) {
	if !reflect.DeepEqual(e.Series, old.Series) {
		eventSeries(at, e)
	}
	at.Dot("involvedObject").Same(check.Bare(e.InvolvedObject), check.Bare(old.InvolvedObject))
	at.Dot("reason").Same(e.Reason, old.Reason)
	at.Dot("message").Same(e.Message, old.Message)
	at.Dot("source").Same(check.Bare(e.Source), check.Bare(old.Source))
	at.Dot("firstTimestamp").Same(e.FirstTimestamp, old.FirstTimestamp)
	at.Dot("lastTimestamp").Same(e.LastTimestamp, old.LastTimestamp)
	at.Dot("count").Same(e.Count, old.Count)
	at.Dot("reason").Same(e.Reason, old.Reason)
	at.Dot("type").Same(e.Type, old.Type)
	if !e.EventTime.Truncate(time.Microsecond).Equal(old.EventTime.Truncate(time.Microsecond)) {
		at.Dot("eventTime").Same(e.EventTime, old.EventTime)
	}
	at.Dot("action").Same(e.Action, old.Action)
	at.Dot("related").Same(check.Bare(e.Related), check.Bare(old.Related))
	at.Dot("reportingController").Same(e.ReportingController, old.ReportingController)
	at.Dot("reportingInstance").Same(e.ReportingInstance, old.ReportingInstance)
}
