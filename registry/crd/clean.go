package crd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-dev/knarr/apis/apiextensions"
	"github.com/knarr-dev/knarr/registry/cache"
	"github.com/knarr-dev/knarr/registry/rest"
)

// patience is how long objects may take to go before it is said that they do.
const patience = time.Minute

// clean deletes the objects of a definition that was asked to go, and lets it
// go when there are none. It tells when it is done, or may be tried again.
func (d *Definitions) clean(ctx context.Context, c *apiextensionsv1.CustomResourceDefinition, i *installed, key string) {
	err := d.empty(ctx, c, i)
	if err != nil && ctx.Err() == nil && !apierrors.IsNotFound(err) {
		slog.WarnContext(ctx, "delete the objects of a definition", "obj", "CustomResourceDefinition/"+c.Name, "err", err)
		wait := time.NewTimer(again)
		defer wait.Stop()
		select {
		case <-wait.C:
		case <-ctx.Done():
		}
	}
	select {
	case d.cleaned <- key:
	case <-ctx.Done():
	}
}

func (d *Definitions) empty(ctx context.Context, c *apiextensionsv1.CustomResourceDefinition, i *installed) error {
	say := func(status apiextensionsv1.ConditionStatus, reason, message string, last bool) error {
		_, err := d.rewrite(ctx, c.Name, func(now *apiextensionsv1.CustomResourceDefinition) {
			if now.UID != c.UID {
				return
			}
			apiextensions.SetCondition(now, apiextensionsv1.CustomResourceDefinitionCondition{
				Type: apiextensionsv1.Terminating, Status: status, Reason: reason, Message: message,
			}, metav1.NewTime(d.Service.Now()))
			if last {
				now.Finalizers = slices.DeleteFunc(now.Finalizers, func(f string) bool { return f == apiextensionsv1.CustomResourceCleanupFinalizer })
			}
		})
		return err
	}
	if err := say(apiextensionsv1.ConditionTrue, "InstanceDeletionInProgress", "CustomResource deletion is in progress", false); err != nil {
		return err
	}
	switch {
	case d.builtIn(c):
		return say(apiextensionsv1.ConditionFalse, "OverlappingBuiltInResource", "instances overlap with built-in resources in storage", true)
	case i == nil:
		return say(apiextensionsv1.ConditionFalse, "NeverEstablished", "resource was never established", true)
	}
	opts := &metav1.DeleteOptions{}
	call := &rest.Call{Admitted: true, Options: opts}
	if _, _, err := i.stored.Main().DeleteCollection(ctx, call, cache.Selection{}, &metav1.ListOptions{}, opts); err != nil {
		return errors.Join(err, say(apiextensionsv1.ConditionTrue, "InstanceDeletionFailed", fmt.Sprintf("could not issue all deletes: %v", err), false))
	}
	err := d.Service.Cache.Fresh(ctx) // what the deletions have written is seen before it is counted
	if err == nil {
		err = gone(ctx, i.objects)
	}
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		return errors.Join(err, say(apiextensionsv1.ConditionTrue, "InstanceDeletionCheck", fmt.Sprintf("could not confirm zero CustomResources remaining: %v", err), false))
	}
	return say(apiextensionsv1.ConditionFalse, "InstanceDeletionCompleted", "removed all instances", true)
}

// gone waits until there are no objects of a kind, but not for long.
func gone(ctx context.Context, k *cache.Kind) error {
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		w, err := k.Watch(wait, cache.Selection{}, 0, true)
		if err != nil {
			return err
		}
		err = drained(wait, k, w)
		w.Close()
		if !errors.Is(err, cache.ErrOver) || k.Removed() {
			return err
		}
	}
}

func drained(ctx context.Context, k *cache.Kind, w *cache.Watcher) error {
	for k.Len() > 0 {
		select {
		case <-w.Ready():
		case <-ctx.Done():
			return errors.New("timed out waiting for the condition")
		}
		if _, _, err := w.Take(); err != nil {
			return err
		}
	}
	return nil
}
