package crd

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/google/uuid"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/registry/hook"
	"github.com/knarr-dev/knarr/registry/rest"
)

// hookTime is how long a webhook may hold a request.
const hookTime = 30 * time.Second

// Webhooks calls the webhooks that convert objects. One in the cluster is
// reached by its service's address, as the stock server does it.
func Webhooks(svc *rest.Service) Caller {
	return func(c *apiextensionsv1.CustomResourceDefinition, objs []*unstructured.Unstructured, apiVersion string) ([]*unstructured.Unstructured, error) {
		made, err := convert(svc, c, objs, apiVersion)
		if err != nil {
			// What a client is told goes by these words.
			return nil, &apierrors.StatusError{ErrStatus: metav1.Status{
				Status: metav1.StatusFailure, Code: http.StatusInternalServerError,
				Message: fmt.Sprintf("conversion webhook for %v %v", objs[0].GroupVersionKind(), err),
			}}
		}
		return made, nil
	}
}

func convert(svc *rest.Service, c *apiextensionsv1.CustomResourceDefinition, objs []*unstructured.Unstructured, apiVersion string) ([]*unstructured.Unstructured, error) {
	review := &apiextensionsv1.ConversionReview{Request: &apiextensionsv1.ConversionRequest{
		UID: types.UID(uuid.NewString()), DesiredAPIVersion: apiVersion,
	}}
	// The two versions of the review look the same but for their names.
	known := slices.IndexFunc(c.Spec.Conversion.Webhook.ConversionReviewVersions, func(v string) bool { return v == "v1" || v == "v1beta1" })
	if known < 0 {
		return nil, errors.New("failed: no supported conversion review versions")
	}
	version := c.Spec.Conversion.Webhook.ConversionReviewVersions[known]
	review.SetGroupVersionKind(schema.GroupVersionKind{Group: apiextensionsv1.GroupName, Version: version, Kind: "ConversionReview"})
	for _, u := range objs {
		review.Request.Objects = append(review.Request.Objects, runtime.RawExtension{Object: u})
	}
	answer, err := post(svc, c, review)
	if err != nil {
		return nil, fmt.Errorf("failed: %w", err)
	}
	if err := accept(review, answer, version); err != nil {
		return nil, fmt.Errorf("failed: %w", err)
	}
	if got := len(answer.Response.ConvertedObjects); got != len(objs) {
		return nil, fmt.Errorf("returned %d objects, expected %d", got, len(objs))
	}
	made := make([]*unstructured.Unstructured, len(objs))
	for i, raw := range answer.Response.ConvertedObjects {
		made[i] = &unstructured.Unstructured{}
		if err := made[i].UnmarshalJSON(raw.Raw); err != nil {
			return nil, fmt.Errorf("returned invalid converted object at index %d: %w", i, err)
		}
		if got := made[i].GroupVersionKind().GroupVersion().String(); got != apiVersion {
			return nil, fmt.Errorf("returned invalid converted object at index %d: invalid groupVersion (expected %s, received %s)", i, apiVersion, got)
		}
		if err := faithful(objs[i], made[i]); err != nil {
			return nil, fmt.Errorf("returned invalid object at index %d: %w", i, err)
		}
	}
	return made, nil
}

// accept tells what is wrong with an answer.
func accept(asked, answer *apiextensionsv1.ConversionReview, version string) error {
	want, got := asked.GroupVersionKind(), answer.GroupVersionKind()
	r := answer.Response
	switch {
	case version == "v1" && got != want:
		return fmt.Errorf("expected webhook response of %v, got %v", want, got)
	case r == nil:
		return errors.New("no response provided")
	case version == "v1" && r.UID != asked.Request.UID:
		return fmt.Errorf("expected response.uid=%q, got %q", asked.Request.UID, r.UID)
	case r.Result.Status != metav1.StatusSuccess && r.Result.Message != "":
		return errors.New(r.Result.Message)
	case r.Result.Status != metav1.StatusSuccess:
		return fmt.Errorf("response.result.status was '%s', not 'Success'", r.Result.Status)
	}
	return nil
}

// faithful tells where a converted object is another than it was, and gives
// it its metadata, of which only labels and annotations may be changed.
func faithful(was, is *unstructured.Unstructured) error {
	for _, p := range []struct{ what, was, is string }{
		{"kind", was.GetKind(), is.GetKind()},
		{"name", was.GetName(), is.GetName()},
		{"namespace", was.GetNamespace(), is.GetNamespace()},
		{"UID", string(was.GetUID()), string(is.GetUID())},
	} {
		if p.was != p.is {
			return fmt.Errorf("must have the same %s: %v != %v", p.what, p.was, p.is)
		}
	}
	made, ok := is.Object["metadata"].(map[string]any)
	if !ok {
		return errors.New("missing metadata in converted object")
	}
	whole, ok := was.DeepCopy().Object["metadata"].(map[string]any)
	if !ok {
		whole = map[string]any{}
	}
	is.Object["metadata"] = whole
	for _, name := range []string{"labels", "annotations"} {
		delete(whole, name)
		if made[name] == nil {
			continue
		}
		texts, _, err := unstructured.NestedStringMap(made, name)
		if err != nil {
			return fmt.Errorf("invalid metadata.%s in converted object: %w", name, err)
		}
		at := field.NewPath("metadata", name)
		errs := validation.ValidateAnnotations(texts, at)
		if name == "labels" {
			errs = metav1validation.ValidateLabels(texts, at)
		}
		if len(errs) > 0 {
			return errs.ToAggregate()
		}
		whole[name] = made[name]
	}
	return nil
}

// post sends a review to the webhook and reads its answer.
func post(svc *rest.Service, c *apiextensionsv1.CustomResourceDefinition, review *apiextensionsv1.ConversionReview) (*apiextensionsv1.ConversionReview, error) {
	to, err := target(c.Spec.Conversion.Webhook.ClientConfig)
	if err != nil {
		return nil, err
	}
	h, err := hook.New(svc, to)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	ctx, cancel := context.WithTimeout(context.Background(), hookTime)
	defer cancel()
	answer := &apiextensionsv1.ConversionReview{}
	return answer, h.Post(ctx, hookTime, review, answer)
}

func target(c *apiextensionsv1.WebhookClientConfig) (hook.Target, error) {
	if c == nil {
		return hook.Target{}, errors.New("webhook configuration must have either service or URL")
	}
	to := hook.Target{URL: c.URL, CABundle: c.CABundle}
	if s := c.Service; s != nil {
		to.Service = &hook.Service{Namespace: s.Namespace, Name: s.Name, Path: s.Path, Port: s.Port}
	}
	return to, nil
}
