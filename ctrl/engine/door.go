package engine

import (
	"context"
	"fmt"
	"path"
	"reflect"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/ctrl"
)

// A door is how one controller reaches the API server. It works for every
// built-in kind alike: the typed clients differ in nothing but the path.
type door struct {
	client kubernetes.Interface
	source string // of events

	once   sync.Once
	events record.EventBroadcaster
	record record.EventRecorder
}

func newDoor(c *ctrl.Erased, client kubernetes.Interface) *door {
	return &door{client: client, source: c.Source}
}

// do carries out a and returns the object as it is afterwards, nil where the
// server does not say.
func (d *door) do(ctx context.Context, a ctrl.Action) (apis.Object, error) {
	kind := reflect.TypeOf(a.Obj)
	gvr, err := resourceOf(kind)
	if err != nil {
		return nil, err
	}
	out := reflect.New(kind.Elem()).Interface().(apis.Object)
	switch a.Verb {
	case ctrl.Create:
		return out, d.to("POST", gvr, a.Obj).Body(a.Obj).Do(ctx).Into(out)
	case ctrl.Update:
		return out, d.to("PUT", gvr, a.Obj).Name(a.Obj.GetName()).SubResource(a.Sub).Body(a.Obj).Do(ctx).Into(out)
	case ctrl.UpdateStatus:
		return out, d.to("PUT", gvr, a.Obj).Name(a.Obj.GetName()).SubResource("status").Body(a.Obj).Do(ctx).Into(out)
	case ctrl.Patch:
		r := d.to("PATCH", gvr, a.Obj).Name(a.Obj.GetName()).SubResource(a.Sub)
		return out, r.SetHeader("Content-Type", string(types.StrategicMergePatchType)).Body([]byte(a.Patch)).Do(ctx).Into(out)
	case ctrl.Delete:
		got, err := d.to("DELETE", gvr, a.Obj).Name(a.Obj.GetName()).Body(deleteOptions(a)).Do(ctx).Get()
		if left, ok := got.(apis.Object); ok { // a kind may be answered with a Status
			return left, err
		}
		return a.Obj, err
	case ctrl.Check:
		if err := d.to("GET", gvr, a.Obj).Name(a.Obj.GetName()).Do(ctx).Into(out); err != nil {
			return nil, err
		}
		if out.GetUID() != a.Obj.GetUID() || out.GetDeletionTimestamp() != nil {
			return nil, errEnough
		}
		return out, nil
	case ctrl.CheckGone:
		switch err := d.to("GET", gvr, a.Obj).Name(a.Obj.GetName()).Do(ctx).Error(); {
		case apierrors.IsNotFound(err):
			return nil, nil
		case err != nil:
			return nil, err
		}
		return nil, errEnough
	case ctrl.Event, ctrl.Warn:
	}
	return nil, fmt.Errorf("%v: not a request", a)
}

// to is a request about the resource of obj, in its namespace if it has one.
func (d *door) to(verb string, gvr schema.GroupVersionResource, obj apis.Object) *rest.Request {
	root := path.Join("/apis", gvr.Group, gvr.Version)
	if gvr.Group == "" {
		root = path.Join("/api", gvr.Version)
	}
	return d.client.CoreV1().RESTClient().Verb(verb).UseProtobufAsDefault().AbsPath(root).
		NamespaceIfScoped(obj.GetNamespace(), obj.GetNamespace() != "").Resource(gvr.Resource)
}

func deleteOptions(a ctrl.Action) *metav1.DeleteOptions {
	opts := &metav1.DeleteOptions{GracePeriodSeconds: a.Grace}
	if uid := a.Obj.GetUID(); uid != "" {
		opts.Preconditions = metav1.NewUIDPreconditions(string(uid))
		if a.Exact {
			opts.Preconditions.ResourceVersion = new(a.Obj.GetResourceVersion())
		}
	}
	if a.Policy != "" {
		opts.PropagationPolicy = &a.Policy
	}
	return opts
}

// tell records an event. It does not wait for it, and repeats are counted
// into one, as every client of Kubernetes does it.
func (d *door) tell(a ctrl.Action, reason, message string) {
	d.once.Do(func() {
		d.events = record.NewBroadcaster()
		d.events.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: d.client.CoreV1().Events("")})
		d.record = d.events.NewRecorder(scheme.Scheme, corev1.EventSource{Component: d.source})
	})
	kind := corev1.EventTypeNormal
	if a.Verb == ctrl.Warn {
		kind = corev1.EventTypeWarning
	}
	d.record.Event(a.Obj, kind, reason, message)
}

func (d *door) close() {
	if d.events != nil {
		d.events.Shutdown()
	}
}
