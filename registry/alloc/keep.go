package alloc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/cache"
	"github.com/knarr-dev/knarr/registry/rest"
)

// ownRange is the ServiceCIDR of the ranges that the server is told of.
const ownRange = "kubernetes"

// How often the server looks after its own range, and mends what others have
// left; as upstream.
const (
	keepEvery = 10 * time.Second
	mendEvery = 3 * time.Minute
)

// Start makes all right before services are served: the cache must have been
// loaded. It returns once the cache shows what it has done. Run is to follow.
func (a *Allocator) Start(ctx context.Context) (err error) {
	if a.lost != nil {
		a.lost.Close()
	}
	if a.lost, err = a.addresses.Objects.Watch(ctx, cache.Selection{}, 0, true); err != nil {
		return err
	}
	if err := a.keep(ctx); err != nil {
		return fmt.Errorf("keep service range: %w", err)
	}
	if err := a.mend(ctx); err != nil {
		return fmt.Errorf("mend services' addresses and ports: %w", err)
	}
	return nil
}

// Run keeps all right until ctx ends.
func (a *Allocator) Run(ctx context.Context) error {
	defer func() { a.lost.Close() }()
	keep, mend := time.NewTicker(keepEvery), time.NewTicker(mendEvery)
	defer keep.Stop()
	defer mend.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-keep.C:
			err = a.keep(ctx)
		case <-mend.C:
			err = a.mend(ctx)
		case <-a.lost.Ready():
			var gone []cache.Delivery
			if gone, _, err = a.lost.Take(); err != nil {
				err = a.Start(ctx) // it was too slow
			}
			for _, d := range gone {
				err = errors.Join(err, a.restore(ctx, d))
			}
		}
		if err != nil && ctx.Err() == nil {
			slog.WarnContext(ctx, "look after services' addresses and ports", "err", err)
		}
	}
}

// keep sees to it that the server's own range is there, and ready.
func (a *Allocator) keep(ctx context.Context) error {
	var want []string
	for _, r := range a.ranges {
		want = append(want, r.String())
	}
	o := a.cidrs.Objects.Get(ownRange)
	if o == nil {
		return a.makeRange(ctx, want)
	}
	obj, err := o.Decode()
	if err != nil {
		return err
	}
	have := obj.(*networkingv1.ServiceCIDR)
	switch {
	case len(want) == 2 && slices.Equal(have.Spec.CIDRs, want[:1]):
		// The cluster has got a second family.
		_, err := a.cidrs.Edit(ctx, &rest.Call{Name: ownRange, Manager: rangeManager}, func(obj apis.Object) error {
			obj.(*networkingv1.ServiceCIDR).Spec.CIDRs = want
			return nil
		})
		return err
	case have.DeletionTimestamp != nil:
		return nil
	case !slices.Equal(have.Spec.CIDRs, want):
		slog.WarnContext(ctx, "service ranges are others than the server is told", "have", have.Spec.CIDRs, "told", want)
		return nil
	case meta.FindStatusCondition(have.Status.Conditions, networkingv1.ServiceCIDRConditionReady) != nil:
		return nil
	}
	_, err = a.cidrs.Edit(ctx, &rest.Call{Name: ownRange, Sub: "status", Manager: rangeManager}, func(obj apis.Object) error {
		status := &obj.(*networkingv1.ServiceCIDR).Status
		meta.SetStatusCondition(&status.Conditions, a.ready())
		return nil
	})
	return err
}

// rangeManager is in whose name the server's own range is written.
const rangeManager = "kubernetes-service-cidr-controller"

func (a *Allocator) ready() metav1.Condition {
	return metav1.Condition{
		Type: networkingv1.ServiceCIDRConditionReady, Status: metav1.ConditionTrue,
		Message: "Kubernetes default Service CIDR is ready", LastTransitionTime: metav1.NewTime(a.svc.Now()).Rfc3339Copy(),
	}
}

// makeRange makes the server's own range, with its status at once: the
// server's start waits for it.
func (a *Allocator) makeRange(ctx context.Context, ranges []string) error {
	value, err := a.cidrs.Main().Wire.Encode(&networkingv1.ServiceCIDR{
		ObjectMeta: metav1.ObjectMeta{Name: ownRange, UID: a.svc.NewUID(), CreationTimestamp: metav1.NewTime(a.svc.Now()).Rfc3339Copy()},
		Spec:       networkingv1.ServiceCIDRSpec{CIDRs: ranges},
		Status:     networkingv1.ServiceCIDRStatus{Conditions: []metav1.Condition{a.ready()}},
	})
	if err != nil {
		return err
	}
	rev, err := a.svc.Store.Commit(ctx, registry.Op{Key: registry.Path(a.cidrs.Definition, "", ownRange), Value: value})
	var conflict *registry.Conflict
	if errors.As(err, &conflict) && conflict.Have != nil {
		rev, err = conflict.Have.Rev, nil // another server was faster
	}
	if err != nil {
		return err
	}
	return a.svc.Cache.Wait(ctx, rev)
}
