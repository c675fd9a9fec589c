package sub

import (
	"context"
	"fmt"
	"slices"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/authn"
	"github.com/knarr-dev/knarr/registry/rest"
)

var tokenRequest = authenticationv1.SchemeGroupVersion.WithKind("TokenRequest")

// How long tokens live.
const (
	tokenLife    = time.Hour
	minTokenLife = 10 * time.Minute
	maxTokenLife = 1 << 32 // seconds

	// A token for a pod that is asked for for just this long is one that the
	// server itself has put into the pod. Such a token is good for a year, for
	// programs that read it only once, and who uses it late is told of.
	podTokenLife = 3607 // seconds
	lateLife     = 365 * 24 * 60 * 60
)

// Tokens issues tokens of service accounts.
type Tokens struct {
	Service   *rest.Service
	Signer    *authn.Signer
	Audiences []string      // the server's own, for who asks for none
	Most      time.Duration // no token lives longer; 0 for no bound
	NewID     func() string
	Extended  bool // whether tokens that the server puts into pods live on
}

// Action returns the action of serviceaccounts/token.
func (t *Tokens) Action() Action {
	return Action{
		Resource: schema.GroupResource{Resource: "serviceaccounts"}, Sub: "token", Kind: tokenRequest,
		New:    func() apis.Object { return &authenticationv1.TokenRequest{} },
		Create: t.create,
	}
}

func (t *Tokens) create(ctx context.Context, c *rest.Call, obj apis.Object) (runtime.Object, error) {
	req := obj.(*authenticationv1.TokenRequest)
	if req.Namespace != "" && req.Namespace != c.Namespace {
		return nil, apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	if req.Name != "" && req.Name != c.Name {
		return nil, apierrors.NewInvalid(tokenRequest.GroupKind(), c.Name, field.ErrorList{
			field.Invalid(field.NewPath("metadata", "name"), req.Name, "must match the service account name if specified"),
		})
	}
	sa, err := t.Service.Lookup(ctx, schema.GroupResource{Resource: "serviceaccounts"}, c.Namespace, c.Name)
	if err != nil {
		return nil, err
	}
	if req.UID != "" && req.UID != sa.GetUID() {
		return nil, conflicting(tokenRequest, c.Name, "the UID in the token request (%s) does not match the UID of the service account (%s)", req.UID, sa.GetUID())
	}
	now := t.Service.Now()
	t.fill(req, sa, now)
	if errs := checkTokenRequest(req); len(errs) > 0 {
		return nil, apierrors.NewInvalid(tokenRequest.GroupKind(), "", errs)
	}
	claims := authn.Claims{
		Subject: "system:serviceaccount:" + sa.GetNamespace() + ":" + sa.GetName(), Audience: req.Spec.Audiences, ID: t.NewID(),
		IssuedAt: now.Unix(), NotBefore: now.Unix(),
		Kubernetes: authn.Binding{Namespace: sa.GetNamespace(), ServiceAccount: refTo(sa)},
	}
	if err := t.bind(ctx, c, req.Spec.BoundObjectRef, &claims.Kubernetes); err != nil {
		return nil, err
	}
	t.last(ctx, req, &claims)
	return t.issue(ctx, req, claims, now)
}

// fill completes a request.
func (t *Tokens) fill(req *authenticationv1.TokenRequest, sa apis.Object, now time.Time) {
	req.Name, req.Namespace, req.UID = sa.GetName(), sa.GetNamespace(), sa.GetUID()
	req.CreationTimestamp = metav1.NewTime(now).Rfc3339Copy()
	req.Status = authenticationv1.TokenRequestStatus{}
	if len(req.Spec.Audiences) == 0 {
		req.Spec.Audiences = t.Audiences
	}
	if req.Spec.ExpirationSeconds == nil {
		req.Spec.ExpirationSeconds = new(int64(tokenLife / time.Second))
	}
}

func checkTokenRequest(req *authenticationv1.TokenRequest) (errs field.ErrorList) {
	at, seconds := field.NewPath("spec", "expirationSeconds"), *req.Spec.ExpirationSeconds
	if seconds < int64(minTokenLife/time.Second) {
		errs = append(errs, field.Invalid(at, seconds, "may not specify a duration less than 10 minutes"))
	}
	if seconds > maxTokenLife {
		errs = append(errs, field.Invalid(at, seconds, "may not specify a duration larger than 2^32 seconds"))
	}
	return errs
}

// bind binds a token to the object that ref names.
func (t *Tokens) bind(ctx context.Context, c *rest.Call, ref *authenticationv1.BoundObjectReference, b *authn.Binding) error {
	if ref == nil {
		return nil
	}
	gvk := schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind)
	plural, namespace := "", c.Namespace
	switch {
	case gvk.Group != "":
	case gvk.Kind == "Pod":
		plural = "pods"
	case gvk.Kind == "Secret":
		plural = "secrets"
	case gvk.Kind == "Node":
		plural, namespace = "nodes", ""
	}
	if plural == "" {
		return apierrors.NewBadRequest(fmt.Sprintf("cannot bind token to object of type %s", gvk))
	}
	obj, err := t.Service.Lookup(ctx, schema.GroupResource{Resource: plural}, namespace, ref.Name)
	if err != nil {
		return err
	}
	to := refTo(obj)
	switch obj := obj.(type) {
	case *corev1.Pod:
		if obj.Spec.ServiceAccountName != c.Name {
			return apierrors.NewBadRequest(fmt.Sprintf("cannot bind token for serviceaccount %q to pod running with different serviceaccount name.", c.Name))
		}
		b.Pod = &to
		if b.Node, err = t.nodeOf(ctx, obj); err != nil {
			return err
		}
	case *corev1.Secret:
		b.Secret = &to
	case *corev1.Node:
		b.Node = &to
	}
	if ref.UID != "" && ref.UID != to.UID {
		return conflicting(gvk, ref.Name,
			"the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", ref.UID)
	}
	return nil
}

// nodeOf is the node that a pod is on, nil for none. One that is not there,
// or not any more, still has its name.
func (t *Tokens) nodeOf(ctx context.Context, p *corev1.Pod) (*authn.Ref, error) {
	if p.Spec.NodeName == "" {
		return nil, nil
	}
	node, err := t.Service.Lookup(ctx, schema.GroupResource{Resource: "nodes"}, "", p.Spec.NodeName)
	if apierrors.IsNotFound(err) {
		return &authn.Ref{Name: p.Spec.NodeName}, nil
	}
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	ref := refTo(node)
	return &ref, nil
}

// last says when the token ends.
func (t *Tokens) last(ctx context.Context, req *authenticationv1.TokenRequest, c *authn.Claims) {
	asked := *req.Spec.ExpirationSeconds
	if most := int64(t.Most / time.Second); most > 0 && asked > most {
		registry.Warn(ctx, fmt.Sprintf("requested expiration of %d seconds shortened to %d seconds", asked, most))
		asked = most
		req.Spec.ExpirationSeconds = &asked
	}
	c.Expiry = c.IssuedAt + asked
	foreign := func(a string) bool { return !slices.Contains(t.Audiences, a) }
	if t.Extended && c.Kubernetes.Pod != nil && asked == podTokenLife && !slices.ContainsFunc(req.Spec.Audiences, foreign) {
		c.Kubernetes.WarnAfter = c.Expiry
		c.Expiry = c.IssuedAt + lateLife
	}
}

func (t *Tokens) issue(ctx context.Context, req *authenticationv1.TokenRequest, c authn.Claims, now time.Time) (runtime.Object, error) {
	token, err := t.Signer.Sign(c)
	if err != nil {
		return nil, apierrors.NewInternalError(fmt.Errorf("failed to generate token: %w", err))
	}
	registry.RequestOf(ctx).Annotate("authentication.kubernetes.io/issued-credential-id", "JTI="+c.ID)
	end := now.Add(time.Duration(*req.Spec.ExpirationSeconds) * time.Second)
	req.Status = authenticationv1.TokenRequestStatus{Token: token, ExpirationTimestamp: metav1.NewTime(end).Rfc3339Copy()}
	req.SetGroupVersionKind(tokenRequest)
	return req, nil
}

func refTo(obj apis.Object) authn.Ref { return authn.Ref{Name: obj.GetName(), UID: obj.GetUID()} }

func conflicting(gvk schema.GroupVersionKind, name, format string, args ...any) error {
	return apierrors.NewConflict(schema.GroupResource{Group: gvk.Group, Resource: gvk.Kind}, name, fmt.Errorf(format, args...))
}
