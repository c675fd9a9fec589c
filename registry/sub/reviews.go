package sub

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/authn"
	"github.com/knarr-dev/knarr/registry/authz"
	"github.com/knarr-dev/knarr/registry/rest"
)

// Reviews returns the actions that tell who somebody is and what somebody
// may do.
func Reviews(who *authn.Chain, may authz.Authorizer, audiences []string, now func() time.Time) []Action {
	r := reviews{who: who, may: may, audiences: audiences, now: now}
	authentication, authorization := authenticationv1.SchemeGroupVersion, authorizationv1.SchemeGroupVersion
	return []Action{
		review(authentication, "tokenreviews", r.token),
		review(authentication, "selfsubjectreviews", r.self),
		review(authorization, "subjectaccessreviews", r.access),
		review(authorization, "localsubjectaccessreviews", r.localAccess),
		review(authorization, "selfsubjectaccessreviews", r.selfAccess),
		review(authorization, "selfsubjectrulesreviews", r.selfRules),
	}
}

// object is a pointer to a T that is an API object.
type object[T any] interface {
	*T
	apis.Object
}

// review makes an action of a func that fills in the answer.
func review[T any, P object[T]](gv schema.GroupVersion, plural string, answer func(ctx context.Context, c *rest.Call, obj P) error) Action {
	kind := gv.WithKind(reflect.TypeFor[T]().Name())
	return Action{
		Resource: gv.WithResource(plural).GroupResource(), Kind: kind, New: func() apis.Object { return P(new(T)) },
		Create: func(ctx context.Context, c *rest.Call, obj apis.Object) (runtime.Object, error) {
			obj.SetUID("")
			obj.SetCreationTimestamp(metav1.Time{})
			if err := answer(ctx, c, obj.(P)); err != nil {
				return nil, err
			}
			obj.GetObjectKind().SetGroupVersionKind(kind)
			return obj, nil
		},
	}
}

type reviews struct {
	who       *authn.Chain
	may       authz.Authorizer
	audiences []string // the server's own
	now       func() time.Time
}

// token tells whose a token is.
func (r reviews) token(ctx context.Context, _ *rest.Call, t *authenticationv1.TokenReview) error {
	if t.Spec.Token == "" {
		return apierrors.NewBadRequest("token is required for TokenReview in authentication")
	}
	wanted := t.Spec.Audiences
	if len(wanted) == 0 {
		wanted = r.audiences
	}
	t.Status = authenticationv1.TokenReviewStatus{}
	id, ok, err := r.who.Token(ctx, t.Spec.Token, wanted)
	switch {
	case err != nil:
		t.Status.Error = fmt.Sprintf("[%v, %v]", authn.ErrToken, err) // as upstream
	case !ok:
		t.Status.Error = authn.ErrToken.Error()
	default:
		t.Status = authenticationv1.TokenReviewStatus{Authenticated: true, User: info(&id.User), Audiences: id.Audiences}
	}
	return nil
}

func info(u *registry.User) authenticationv1.UserInfo {
	i := authenticationv1.UserInfo{Username: u.Name, UID: u.UID, Groups: u.Groups}
	for k, v := range u.Extra {
		if i.Extra == nil {
			i.Extra = map[string]authenticationv1.ExtraValue{}
		}
		i.Extra[k] = v
	}
	return i
}

// self tells clients who they are.
func (r reviews) self(ctx context.Context, _ *rest.Call, s *authenticationv1.SelfSubjectReview) error {
	user := registry.RequestOf(ctx).User
	s.ObjectMeta = metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(r.now()).Rfc3339Copy()}
	s.Status.UserInfo = info(&user)
	return nil
}

// access tells what somebody may do.
func (r reviews) access(ctx context.Context, _ *rest.Call, s *authorizationv1.SubjectAccessReview) error {
	errs := checkAccess(&s.Spec)
	errs = append(errs, bare(s.ObjectMeta, "must be empty")...)
	if len(errs) > 0 {
		return invalidReview(errs)
	}
	s.Status = r.decide(ctx, asked(&s.Spec))
	return nil
}

// localAccess tells what somebody may do in the namespace of the request.
func (r reviews) localAccess(ctx context.Context, c *rest.Call, s *authorizationv1.LocalSubjectAccessReview) error {
	if s.Namespace == "" {
		s.Namespace = c.Namespace
	}
	if s.Namespace != c.Namespace {
		return apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	errs := checkAccess(&s.Spec)
	meta := s.ObjectMeta
	meta.Namespace = ""
	errs = append(errs, bare(meta, "must be empty except for namespace")...)
	if a := s.Spec.ResourceAttributes; a != nil && a.Namespace != s.Namespace {
		errs = append(errs, field.Invalid(field.NewPath("spec.resourceAttributes.namespace"), a.Namespace, "must match metadata.namespace"))
	}
	if a := s.Spec.NonResourceAttributes; a != nil {
		errs = append(errs, field.Invalid(field.NewPath("spec.nonResourceAttributes"), a, "disallowed on this kind of request"))
	}
	if len(errs) > 0 {
		return invalidReview(errs)
	}
	s.Status = r.decide(ctx, asked(&s.Spec))
	return nil
}

// selfAccess tells clients what they may do.
func (r reviews) selfAccess(ctx context.Context, _ *rest.Call, s *authorizationv1.SelfSubjectAccessReview) error {
	errs := checkAttributes(s.Spec.ResourceAttributes, s.Spec.NonResourceAttributes)
	errs = append(errs, checkSelectors(s.Spec.ResourceAttributes)...)
	errs = append(errs, bare(s.ObjectMeta, "must be empty")...)
	if len(errs) > 0 {
		return invalidReview(errs)
	}
	s.Status = r.decide(ctx, question(registry.RequestOf(ctx).User, s.Spec.ResourceAttributes, s.Spec.NonResourceAttributes))
	return nil
}

// selfRules lists all that clients may do in a namespace.
func (r reviews) selfRules(ctx context.Context, _ *rest.Call, s *authorizationv1.SelfSubjectRulesReview) error {
	if s.Spec.Namespace == "" {
		return apierrors.NewBadRequest("no namespace on request")
	}
	user := registry.RequestOf(ctx).User
	all := r.may.Rules(ctx, &user, s.Spec.Namespace)
	*s = authorizationv1.SelfSubjectRulesReview{Status: authorizationv1.SubjectRulesReviewStatus{
		ResourceRules: []authorizationv1.ResourceRule{}, NonResourceRules: []authorizationv1.NonResourceRule{},
		Incomplete: all.Incomplete, EvaluationError: strings.Join(all.Faults, ", "),
	}}
	for _, rule := range all.Rules {
		if len(rule.Resources) > 0 {
			s.Status.ResourceRules = append(s.Status.ResourceRules, authorizationv1.ResourceRule{
				Verbs: rule.Verbs, APIGroups: rule.APIGroups, Resources: rule.Resources, ResourceNames: rule.ResourceNames,
			})
		}
		if len(rule.NonResourceURLs) > 0 {
			s.Status.NonResourceRules = append(s.Status.NonResourceRules, authorizationv1.NonResourceRule{
				Verbs: rule.Verbs, NonResourceURLs: rule.NonResourceURLs,
			})
		}
	}
	return nil
}

// A query is a request that somebody might make, and what of the review
// could not be understood.
type query struct {
	request *registry.Request
	faults  []string
}

func (r reviews) decide(ctx context.Context, q query) authorizationv1.SubjectAccessReviewStatus {
	ok, why := r.may.Allows(ctx, q.request)
	return authorizationv1.SubjectAccessReviewStatus{Allowed: ok, Reason: why, EvaluationError: strings.Join(q.faults, "; ")}
}

// asked is what a review of somebody else's access asks.
func asked(s *authorizationv1.SubjectAccessReviewSpec) query {
	u := registry.User{Name: s.User, UID: s.UID, Groups: s.Groups}
	for k, v := range s.Extra {
		if u.Extra == nil {
			u.Extra = map[string][]string{}
		}
		u.Extra[k] = v
	}
	return question(u, s.ResourceAttributes, s.NonResourceAttributes)
}

func question(u registry.User, a *authorizationv1.ResourceAttributes, n *authorizationv1.NonResourceAttributes) query {
	if a == nil {
		return query{request: &registry.Request{User: u, Verb: n.Verb, Path: n.Path}}
	}
	q := query{request: &registry.Request{
		User: u, Verb: a.Verb, Resource: true, Group: a.Group, Version: a.Version, Plural: a.Resource,
		Sub: a.Subresource, Namespace: a.Namespace, Name: a.Name,
	}}
	if q.request.Version == "" {
		q.request.Version = "*"
	}
	var fault string
	q.request.Fields, fault = fieldSelector(a.FieldSelector)
	q.faults = appendSome(q.faults, fault)
	q.request.Labels, fault = labelSelector(a.LabelSelector)
	q.faults = appendSome(q.faults, fault)
	return q
}

func appendSome(all []string, text string) []string {
	if text == "" {
		return all
	}
	return append(all, text)
}
