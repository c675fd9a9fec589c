package core

import (
	"fmt"
	"reflect"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
)

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
