//go:build integration

package livetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// A hollow is a scheduler and a kubelet for one node that only say what real
// ones would.
type hollow struct {
	t      *testing.T
	client *kubernetes.Clientset
	node   string
	ip     atomic.Int64
	ready  func(*corev1.Pod) bool
}

// newHollow runs a hollow node until the test ends. Pods that ready turns
// down stay unready; nil is ready for all.
func newHollow(t *testing.T, client *kubernetes.Clientset, node string, ready func(*corev1.Pod) bool) *hollow {
	h := &hollow{t: t, client: client, node: node, ready: ready}
	ctx, stop := context.WithCancel(context.Background())
	h.register(ctx)
	f := informers.NewSharedInformerFactory(client, 0)
	pods := f.Core().V1().Pods().Informer()
	if _, err := pods.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { go h.sync(ctx, o.(*corev1.Pod)) },
		UpdateFunc: func(_, o any) { go h.sync(ctx, o.(*corev1.Pod)) },
	}); err != nil {
		t.Fatal(err)
	}
	f.StartWithContext(ctx)
	f.WaitForCacheSyncWithContext(ctx)
	var beat sync.WaitGroup
	beat.Go(func() { h.heartbeat(ctx) })
	t.Cleanup(func() {
		stop()
		beat.Wait()
		f.Shutdown()
		if err := client.CoreV1().Nodes().Delete(context.Background(), node, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	})
	return h
}

func (h *hollow) register(ctx context.Context) {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: h.node, Labels: map[string]string{corev1.LabelTopologyZone: "z1"}}}
	if _, err := h.client.CoreV1().Nodes().Create(ctx, n, metav1.CreateOptions{}); err != nil {
		h.t.Fatal(err)
	}
	now := metav1.Now().UTC().Format(time.RFC3339)
	alive := fmt.Sprintf(`{"status":{"conditions":[{"type":"Ready","status":"True","lastHeartbeatTime":%q,"lastTransitionTime":%q}]}}`, now, now)
	if _, err := h.client.CoreV1().Nodes().Patch(ctx, h.node, types.StrategicMergePatchType, []byte(alive), metav1.PatchOptions{}, "status"); err != nil {
		h.t.Fatal(err)
	}
}

// heartbeat renews the node's lease until ctx ends.
func (h *hollow) heartbeat(ctx context.Context) {
	leases := h.client.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: h.node}}
		if old, err := leases.Get(ctx, h.node, metav1.GetOptions{}); err == nil {
			l = old
		}
		l.Spec.RenewTime = &metav1.MicroTime{Time: time.Now()}
		var err error
		if l.ResourceVersion == "" {
			_, err = leases.Create(ctx, l, metav1.CreateOptions{})
		} else {
			_, err = leases.Update(ctx, l, metav1.UpdateOptions{})
		}
		if err != nil && ctx.Err() == nil {
			h.t.Error("lease:", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// sync takes p one step on.
func (h *hollow) sync(ctx context.Context, p *corev1.Pod) {
	pods := h.client.CoreV1().Pods(p.Namespace)
	var err error
	switch {
	case p.DeletionTimestamp != nil && p.Spec.NodeName == h.node:
		err = pods.Delete(ctx, p.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0)), Preconditions: metav1.NewUIDPreconditions(string(p.UID))})
	case p.DeletionTimestamp != nil:
	case p.Spec.NodeName == "":
		err = pods.Bind(ctx, &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: p.Name, UID: p.UID}, Target: corev1.ObjectReference{Kind: "Node", Name: h.node}}, metav1.CreateOptions{})
	case p.Spec.NodeName == h.node && p.Status.PodIP == "" && (h.ready == nil || h.ready(p)):
		err = h.run(ctx, p)
	}
	if err != nil && ctx.Err() == nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		h.t.Error("hollow:", err)
	}
}

// run has p run. An older look at p than the newest one is of no use: it may run.
func (h *hollow) run(ctx context.Context, p *corev1.Pod) error {
	n := h.ip.Add(1)
	now := metav1.Now().UTC().Format(time.RFC3339)
	patch := fmt.Sprintf(`{"metadata":{"uid":%q,"resourceVersion":%q},"status":{"phase":"Running","podIP":"10.9.%d.%d","podIPs":[{"ip":"10.9.%d.%d"}],"conditions":[{"type":"Ready","status":"True","lastTransitionTime":%q}]}}`,
		p.UID, p.ResourceVersion, n/250, n%250+1, n/250, n%250+1, now)
	_, err := h.client.CoreV1().Pods(p.Namespace).Patch(ctx, p.Name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}, "status")
	return err
}

// eventually waits until what holds, and fails the test with its last error
// when that takes too long.
func eventually(t *testing.T, within time.Duration, what string, holds func() error) {
	t.Helper()
	err := errors.New("never tried")
	for end := time.Now().Add(within); time.Now().Before(end); {
		if err = holds(); err == nil {
			return
		}
		<-time.After(20 * time.Millisecond)
	}
	t.Fatalf("%s: not within %v: %v", what, within, err)
}

// space is a namespace of the test's own, ready to have pods.
func space(t *testing.T, client *kubernetes.Clientset) string {
	t.Helper()
	ns, err := client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "live-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.WithoutCancel(t.Context())
	t.Cleanup(func() {
		if err := client.CoreV1().Namespaces().Delete(ctx, ns.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
		eventually(t, 60*time.Second, "namespace "+ns.Name+" goes", func() error {
			if _, err := client.CoreV1().Namespaces().Get(ctx, ns.Name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
				return fmt.Errorf("still there (%w)", err)
			}
			return nil
		})
	})
	eventually(t, 10*time.Second, "service account", func() error {
		_, err := client.CoreV1().ServiceAccounts(ns.Name).Get(t.Context(), "default", metav1.GetOptions{})
		return err
	})
	return ns.Name
}
