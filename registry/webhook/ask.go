package webhook

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"
	admissionv1 "k8s.io/api/admission/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/match"
)

// ask asks a webhook about a request, and returns its answer where it has
// nothing against it. Failure to get an answer is an unreached.
func (h *webhook) ask(ctx context.Context, seen *match.Seen, check func(r *admissionv1.AdmissionResponse) error) (*admissionv1.AdmissionResponse, error) {
	question := &admissionv1.AdmissionReview{Request: seen.Review()}
	if *question.Request.DryRun && !h.harmless {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("admission webhook %q does not support dry run", h.name))
	}
	question.Request.UID = types.UID(uuid.NewString())
	// The two versions of the review look the same but for their names.
	question.SetGroupVersionKind(schema.GroupVersionKind{Group: admissionv1.GroupName, Version: h.version, Kind: "AdmissionReview"})
	answer, err := h.post(ctx, question)
	if err != nil {
		return nil, &unreached{h.name, err}
	}
	r := answer.Response
	if err := accept(question, answer); err != nil {
		return nil, &unreached{h.name, fmt.Errorf("received invalid webhook response: %w", err)}
	}
	if err := check(r); err != nil && h.version == "v1" {
		return nil, &unreached{h.name, fmt.Errorf("received invalid webhook response: %w", err)}
	}
	for key, value := range r.AuditAnnotations {
		registry.RequestOf(ctx).Annotate(h.name+"/"+key, value)
	}
	registry.Warn(ctx, r.Warnings...)
	if !r.Allowed {
		return nil, denied(h.name, r.Result)
	}
	return r, nil
}

// post sends a review, within the time that the webhook and the request have.
func (h *webhook) post(ctx context.Context, question *admissionv1.AdmissionReview) (*admissionv1.AdmissionReview, error) {
	switch {
	case h.version == "":
		return nil, errors.New("could not create admission objects: webhook does not accept known AdmissionReview versions (v1, v1beta1)")
	case h.broken != nil:
		return nil, fmt.Errorf("could not get REST client: %w", h.broken)
	}
	ctx, cancel := context.WithTimeout(ctx, h.timeout)
	defer cancel()
	timeout := h.timeout
	if end, ok := ctx.Deadline(); ok {
		timeout = (time.Until(end) + time.Second - 1).Truncate(time.Second)
	}
	answer := &admissionv1.AdmissionReview{}
	if err := h.to.Post(ctx, max(timeout, time.Second), question, answer); err != nil {
		return nil, fmt.Errorf("failed to call webhook: %w", err)
	}
	return answer, nil
}

// accept tells what is wrong with an answer. The older version was never so
// strict.
func accept(question, answer *admissionv1.AdmissionReview) error {
	want, got := question.GroupVersionKind(), answer.GroupVersionKind()
	switch {
	case answer.Response == nil:
		return errors.New("webhook response was absent")
	case want.Version != "v1":
	case answer.Response.UID != question.Request.UID:
		return fmt.Errorf("expected response.uid=%q, got %q", question.Request.UID, answer.Response.UID)
	case got != want:
		return fmt.Errorf("expected webhook response of %v, got %v", want, got)
	}
	return nil
}

// denied is what a client is told that a webhook does not let through.
func denied(name string, said *metav1.Status) error {
	status := metav1.Status{}
	if said != nil {
		status = *said
	}
	status.Code = max(status.Code, http.StatusBadRequest)
	if status.Status == "" || status.Status == metav1.StatusSuccess {
		status.Status = metav1.StatusFailure
	}
	text := fmt.Sprintf("admission webhook %q denied the request", name)
	switch {
	case status.Message != "":
		text += ": " + status.Message
	case status.Reason != "":
		text += ": " + string(status.Reason)
	default:
		text += " without explanation"
	}
	status.Message = text
	return &apierrors.StatusError{ErrStatus: status}
}
