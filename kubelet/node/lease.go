package node

import (
	"context"
	"log/slog"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

const (
	leaseLife  = 40 * time.Second
	leaseEvery = leaseLife / 4
)

// holdLease renews the node's lease until ctx ends, and sooner after a failure.
// contract: N-4
func holdLease(ctx context.Context, client kubernetes.Interface, node *corev1.Node) {
	leases := client.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	var lease *coordinationv1.Lease // as last written, nil where that is not known
	for pause := time.Duration(0); ; {
		var err error
		if lease != nil {
			lease, err = leases.Update(ctx, renewed(lease, node, time.Now()), metav1.UpdateOptions{})
		} else {
			if lease, err = leases.Get(ctx, node.Name, metav1.GetOptions{}); apierrors.IsNotFound(err) {
				lease, err = leases.Create(ctx, renewed(&coordinationv1.Lease{}, node, time.Now()), metav1.CreateOptions{})
			} else if err == nil {
				continue
			}
		}
		if err == nil {
			pause = leaseEvery
		} else {
			lease = nil
			pause = min(leaseEvery, max(200*time.Millisecond, 2*(pause%leaseEvery)))
			if ctx.Err() == nil {
				slog.WarnContext(ctx, "renew node lease", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// renewed is the lease as held from now on.
func renewed(l *coordinationv1.Lease, node *corev1.Node, now time.Time) *coordinationv1.Lease {
	l = l.DeepCopy()
	l.Name, l.Namespace = node.Name, corev1.NamespaceNodeLease
	l.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}}
	l.Spec.HolderIdentity = &node.Name
	l.Spec.LeaseDurationSeconds = new(int32(leaseLife / time.Second))
	l.Spec.RenewTime = &metav1.MicroTime{Time: now}
	return l
}
