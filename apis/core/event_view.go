package core

import (
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"

	"github.com/knarr-dev/knarr/apis"
)

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
