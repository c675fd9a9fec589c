package sweep

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"

	"github.com/knarr-dev/knarr/ctrl"
	"github.com/knarr-dev/knarr/ctrl/gc"
)

// collectors is how many deletions are under way at a time.
const collectors = 20

// What makes an object be looked at again later, and is no news.
var (
	errUnlisted = errors.New("not all kinds have been listed")
	errUnseen   = errors.New("the owner has not been seen yet")
)

// A collector does what the graph decides.
type collector struct {
	*watcher

	meta   metadata.Interface
	client kubernetes.Interface
	queue  workqueue.TypedRateLimitingInterface[types.UID]
	events record.EventRecorder
}

func (c *collector) run(ctx context.Context) {
	broadcaster := record.NewBroadcaster()
	defer broadcaster.Shutdown()
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: c.client.CoreV1().Events("")})
	c.events = broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "garbage-collector-controller"})
	work(ctx, c.queue, collectors, c.look)
}

// look decides about one object and does what was decided.
func (c *collector) look(ctx context.Context, uid types.UID) (time.Duration, error) {
	v := c.next(uid)
	err := c.do(ctx, &v)
	switch {
	case apierrors.IsNotFound(err):
		return 0, nil // its event is on the way
	case err != nil && !apierrors.IsConflict(err) && !errors.Is(err, errUnlisted) && !errors.Is(err, errUnseen):
		slog.WarnContext(ctx, "collect garbage", "obj", v.Kind+"/"+v.Namespace+"/"+v.Name, "deed", v.Deed, "err", err)
	}
	return 0, err
}

func (c *collector) next(uid types.UID) gc.Verdict {
	complete := c.complete()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.graph.Next(uid, complete)
}

func (c *collector) do(ctx context.Context, v *gc.Verdict) error {
	switch v.Deed {
	case gc.Nothing:
		return nil
	case gc.Wait:
		return errUnlisted
	case gc.Each:
		for _, uid := range v.Others {
			c.queue.Add(uid)
		}
		return nil
	case gc.Ask:
		return c.ask(ctx, v)
	case gc.Delete:
		opts := metav1.DeleteOptions{
			PropagationPolicy: &v.Policy,
			Preconditions:     &metav1.Preconditions{UID: &v.UID, ResourceVersion: &v.Revision},
		}
		if err := c.of(v).Delete(ctx, v.Name, opts); err != nil {
			return err
		}
	case gc.SetOwners:
		if err := c.patch(ctx, v, map[string]any{"ownerReferences": v.Refs}); err != nil {
			return err
		}
	case gc.Release:
		left := slices.DeleteFunc(slices.Clone(v.Finalizers), func(f string) bool { return f == v.Finalizer })
		if err := c.patch(ctx, v, map[string]any{"finalizers": left}); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.graph.Did(v)
	return nil
}

func (c *collector) of(v *gc.Verdict) metadata.ResourceInterface {
	return c.meta.Resource(v.GroupVersionResource).Namespace(v.Namespace)
}

// patch sets fields of the metadata of the very revision that was decided about.
func (c *collector) patch(ctx context.Context, v *gc.Verdict, fields map[string]any) error {
	fields["uid"], fields["resourceVersion"] = v.UID, v.Revision
	_, err := c.of(v).Patch(ctx, v.Name, types.MergePatchType, []byte(ctrl.JSON(map[string]any{"metadata": fields})), metav1.PatchOptions{})
	return err
}

// ask asks the server for owners that were not seen.
func (c *collector) ask(ctx context.Context, v *gc.Verdict) error {
	var unseen error
	for _, ref := range v.Refs {
		r := c.resource(ref.APIVersion, ref.Kind)
		if r == nil {
			c.rediscover()
			return fmt.Errorf("kind %s of %s is not known", ref.Kind, ref.APIVersion)
		}
		answer, err := gc.Kept, error(nil)
		if v.Namespace != "" || !r.Namespaced {
			answer, err = c.find(ctx, r, v.Namespace, ref)
		}
		if err != nil {
			return err
		}
		if answer == 0 {
			unseen = errUnseen
			continue
		}
		c.complain(v, ref)
		c.change("", func(g *gc.Graph) { g.Answer(v.UID, ref, answer) })
	}
	return unseen
}

// find is gc.Absent where there is no owner as ref has it, and 0 where there is.
func (c *collector) find(ctx context.Context, r *gc.Resource, ns string, ref metav1.OwnerReference) (gc.Answer, error) {
	if !r.Namespaced {
		ns = ""
	}
	owner, err := c.meta.Resource(r.GroupVersionResource).Namespace(ns).Get(ctx, ref.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return gc.Absent, nil
	case err != nil:
		return 0, err
	case owner.UID != ref.UID:
		return gc.Absent, nil
	}
	return 0, nil
}

// complain tells the user of a reference that can never be right.
func (c *collector) complain(v *gc.Verdict, ref metav1.OwnerReference) {
	c.mu.Lock()
	strange := slices.ContainsFunc(c.graph.Strangers(v.UID), func(r metav1.OwnerReference) bool { return r.UID == ref.UID })
	c.mu.Unlock()
	if !strange {
		return
	}
	about := &corev1.ObjectReference{
		Kind: v.Kind, APIVersion: v.Resource.GroupVersion().String(), Namespace: v.Namespace, Name: v.Name, UID: v.UID,
	}
	c.events.Eventf(about, corev1.EventTypeWarning, "OwnerRefInvalidNamespace", "ownerRef [%s/%s, namespace: %s, name: %s, uid: %s] does not exist in namespace %q",
		ref.APIVersion, ref.Kind, v.Namespace, ref.Name, ref.UID, v.Namespace)
}
