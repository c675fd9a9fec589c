package rest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/cache"
)

// catchUp is how long a read waits for a revision that is not here yet, as upstream.
const catchUp = 3 * time.Second

// Get returns an object no older than version: the newest where it is "",
// whatever is at hand where it is "0".
func (k *Kind) Get(ctx context.Context, namespace, name, version string) (*cache.Object, error) {
	if err := k.await(ctx, version); err != nil {
		return nil, err
	}
	o := k.Objects.Get(registry.Key(namespace, name))
	if o == nil {
		return nil, k.notFound(name)
	}
	return o, nil
}

// await waits until the cache is as new as version asks.
func (k *Kind) await(ctx context.Context, version string) error {
	if version == "" {
		return k.unserved(k.service.Cache.Fresh(ctx))
	}
	rev, err := parseVersion(version)
	if err != nil || rev == 0 {
		return err
	}
	return k.reach(ctx, rev)
}

// reach waits for revision rev, but not for long.
func (k *Kind) reach(ctx context.Context, rev int64) error {
	wait, cancel := context.WithTimeout(ctx, catchUp)
	defer cancel()
	err := k.service.Cache.Wait(wait, rev)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return tooLarge(rev, k.service.Cache.Rev())
	}
	return k.unserved(err)
}

func parseVersion(version string) (int64, error) {
	rev, err := strconv.ParseUint(version, 10, 63)
	if err != nil {
		return 0, bare(fmt.Sprintf("resourceVersion: Invalid value: %q: %v", version, err))
	}
	return int64(rev), nil
}

// tooLarge is the error for a revision that the store has not come to.
func tooLarge(asked, current int64) error {
	err := apierrors.NewTimeoutError(fmt.Sprintf("Too large resource version: %d, current: %d", asked, current), 1)
	err.ErrStatus.Details.Causes = []metav1.StatusCause{{
		Type: metav1.CauseTypeResourceVersionTooLarge, Message: "Too large resource version",
	}}
	return err
}
