package match

import (
	"context"
	"fmt"

	"github.com/google/cel-go/interpreter"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/cel/library"

	"github.com/knarr-dev/knarr/apis/expression"
	"github.com/knarr-dev/knarr/registry"
)

// An Allower tells whether a request would be allowed, and why.
type Allower func(ctx context.Context, r *registry.Request) (bool, string)

// Vars are the variables of expressions about a request. Others that are not
// of all expressions may be added.
type Vars map[string]any

// ResolveName is part of interpreter.Activation.
func (v Vars) ResolveName(name string) (any, bool) {
	val, ok := v[name]
	return val, ok
}

// Parent is part of interpreter.Activation.
func (v Vars) Parent() interpreter.Activation { return nil }

// Vars are the variables that every expression may use, and the authorizer.
func (s *Seen) Vars(may Allower) (Vars, error) {
	v := Vars{expression.NamespaceObject: nil}
	var err error
	if v[expression.Object], err = content(s.Object); err != nil {
		return nil, fmt.Errorf("failed to prepare object variable for evaluation: %w", err)
	}
	if v[expression.OldObject], err = content(s.Old); err != nil {
		return nil, fmt.Errorf("failed to prepare oldObject variable for evaluation: %w", err)
	}
	review := s.Review()
	// The objects are variables of their own.
	review.Object, review.OldObject = runtime.RawExtension{}, runtime.RawExtension{}
	request, err := runtime.DefaultUnstructuredConverter.ToUnstructured(review)
	if err != nil {
		return nil, fmt.Errorf("failed to prepare request variable for evaluation: %w", err)
	}
	if options := review.Options.Object; options != nil {
		if request["options"], err = content(options); err != nil {
			return nil, fmt.Errorf("failed to prepare request variable for evaluation: %w", err)
		}
	}
	v[expression.Request] = request
	r := s.request
	who := &user.DefaultInfo{Name: r.User.Name, UID: r.User.UID, Groups: r.User.Groups, Extra: r.User.Extra}
	v[expression.Authorizer] = library.NewAuthorizerVal(who, asking(may))
	v[expression.RequestAuthorizer] = library.NewResourceAuthorizerVal(who, asking(may), asked{s})
	return v, nil
}

// asked is a request as one may ask whether it is allowed.
type asked struct{ *Seen }

// GetName is part of library.Resource.
func (a asked) GetName() string { return nameOf(a.request) }

// GetNamespace is part of library.Resource.
func (a asked) GetNamespace() string { return namespaceOf(a.request) }

// GetResource is part of library.Resource.
func (a asked) GetResource() schema.GroupVersionResource { return a.request.Resource }

// GetSubresource is part of library.Resource.
func (a asked) GetSubresource() string { return a.request.Sub }

// asking is an Allower as the library of expressions wants it.
func asking(may Allower) authorizer.Authorizer {
	return authorizer.AuthorizerFunc(func(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
		who := a.GetUser()
		ok, why := may(ctx, &registry.Request{
			User: registry.User{Name: who.GetName(), UID: who.GetUID(), Groups: who.GetGroups(), Extra: who.GetExtra()},
			Verb: a.GetVerb(), Path: a.GetPath(), Resource: a.IsResourceRequest(), Group: a.GetAPIGroup(), Version: a.GetAPIVersion(),
			Plural: a.GetResource(), Sub: a.GetSubresource(), Namespace: a.GetNamespace(), Name: a.GetName(),
		})
		if ok {
			return authorizer.DecisionAllow, why, nil
		}
		return authorizer.DecisionNoOpinion, why, nil
	})
}
