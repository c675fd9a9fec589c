package rest

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/cache"
	"github.com/knarr-dev/knarr/registry/wire"
)

// List answers a list request: the objects, and the list's metadata. The
// options have been validated.
func (k *Kind) List(ctx context.Context, sel cache.Selection, opts *metav1.ListOptions) ([]*cache.Object, wire.ListMeta, error) {
	q := cache.Query{Selection: sel, Limit: int(opts.Limit)}
	if err := k.place(ctx, opts, &q); err != nil {
		return nil, wire.ListMeta{}, err
	}
	l, err := k.Objects.List(ctx, q)
	switch {
	case errors.Is(err, registry.ErrCompacted) && opts.Continue != "":
		return nil, wire.ListMeta{}, expired(q.From)
	case errors.Is(err, registry.ErrFuture):
		return nil, wire.ListMeta{}, tooLarge(q.Rev, k.service.Cache.Rev())
	case err != nil:
		return nil, wire.ListMeta{}, k.unserved(err)
	}
	if l.Objects, err = k.ready(l.Objects); err != nil {
		return nil, wire.ListMeta{}, err
	}
	meta := wire.ListMeta{Rev: l.Rev}
	if l.Next != "" {
		if meta.Continue, err = encodeContinue(l.Rev, l.Next); err != nil {
			return nil, wire.ListMeta{}, err
		}
		if l.Left >= 0 {
			meta.Remaining = new(int64(l.Left))
		}
	}
	return l.Objects, meta, nil
}

// place finds as of which revision and from which key q is to list.
func (k *Kind) place(ctx context.Context, opts *metav1.ListOptions, q *cache.Query) error {
	if opts.Continue != "" {
		rev, start, err := decodeContinue(opts.Continue)
		if err != nil {
			return apierrors.NewBadRequest(fmt.Sprintf("invalid continue token: %v", err))
		}
		if opts.ResourceVersion != "" && opts.ResourceVersion != "0" {
			return apierrors.NewBadRequest("specifying resource version is not allowed when using continue")
		}
		q.From = start
		if rev > 0 {
			q.Rev = rev
			return k.reach(ctx, rev)
		}
		return k.await(ctx, "")
	}
	if opts.ResourceVersion == "" || opts.ResourceVersion == "0" {
		return k.await(ctx, opts.ResourceVersion)
	}
	rev, err := parseVersion(opts.ResourceVersion)
	if err != nil {
		return apierrors.NewBadRequest(fmt.Sprintf("invalid resource version: %v", err))
	}
	legacy := opts.ResourceVersionMatch == "" && opts.Limit > 0
	if legacy || opts.ResourceVersionMatch == metav1.ResourceVersionMatchExact {
		q.Rev = rev
	}
	return k.reach(ctx, rev)
}

// FieldSelector reads a field selector in the form's own names.
func (f *Form) FieldSelector(text string) (fields.Selector, error) {
	sel, err := fields.ParseSelector(text)
	if err != nil {
		return nil, err
	}
	return sel.Transform(func(name, value string) (string, string, error) {
		if name == "metadata.name" || name == "metadata.namespace" && f.Scope == apis.Namespaced {
			return name, value, nil
		}
		stored := name
		if f.view != nil {
			stored = ""
			for own, shown := range f.view.Fields {
				if shown == name {
					stored = own
				}
			}
		}
		_, known := f.Fields[stored]
		switch {
		case known && f.Custom != nil:
			return FieldOf(f.Version, stored), value, nil
		case known:
			return stored, value, nil
		case len(f.Fields) == 0 && f.Custom == nil:
			return "", "", fmt.Errorf("%q is not a known field selector: only %q, %q", name, "metadata.name", "metadata.namespace")
		}
		return "", "", fmt.Errorf("field label not supported: %s", name)
	})
}

// A continuation is what a continue token holds: where a list goes on, and
// as of which revision, -1 for the newest.
type continuation struct {
	APIVersion string `json:"v"`
	Rev        int64  `json:"rv"`
	Start      string `json:"start"`
}

const continueVersion = "meta.k8s.io/v1"

func encodeContinue(rev int64, start string) (string, error) {
	data, err := json.Marshal(continuation{continueVersion, rev, "/" + start})
	return base64.RawURLEncoding.EncodeToString(data), err
}

func decodeContinue(token string) (rev int64, start string, err error) {
	data, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return 0, "", fmt.Errorf("continue key is not valid: %w", err)
	}
	var c continuation
	if err := json.Unmarshal(data, &c); err != nil {
		return 0, "", fmt.Errorf("continue key is not valid: %w", err)
	}
	if c.APIVersion != continueVersion {
		return 0, "", fmt.Errorf("continue key is not valid: server does not recognize this encoded version %q", c.APIVersion)
	}
	if c.Rev == 0 {
		return 0, "", errors.New("continue key is not valid: incorrect encoded start resourceVersion (version meta.k8s.io/v1)")
	}
	if c.Start == "" {
		return 0, "", errors.New("continue key is not valid: encoded start key empty (version meta.k8s.io/v1)")
	}
	key := "/" + strings.TrimPrefix(c.Start, "/")
	// A key ends with a NUL where a list goes on behind it.
	if path.Clean(key) != key {
		return 0, "", fmt.Errorf("continue key is not valid: %s", c.Start)
	}
	return c.Rev, key[1:], nil
}

// expired is the error for a continue token whose revision is compacted. It
// carries another with which the list can go on as things are now.
func expired(start string) error {
	token, err := encodeContinue(-1, start)
	if err != nil {
		return err
	}
	gone := apierrors.NewResourceExpired("The provided continue parameter is too old " +
		"to display a consistent list result. You can start a new list without " +
		"the continue parameter, or use the continue token in this response to " +
		"retrieve the remainder of the results. Continuing with the provided " +
		"token results in an inconsistent list - objects that were created, " +
		"modified, or deleted between the time the first chunk was returned " +
		"and now may show up in the list.")
	gone.ErrStatus.ListMeta.Continue = token
	return gone
}
