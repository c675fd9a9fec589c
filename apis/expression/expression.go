// Package expression compiles the CEL expressions by which admission decides,
// and says which variables they may use. What they evaluate to is for the
// caller to find out, with values for the variables.
package expression

import (
	"fmt"
	"slices"
	"sync"

	"github.com/google/cel-go/cel"
	"k8s.io/apimachinery/pkg/util/version"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/common"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/apiserver/pkg/cel/library"
	"k8s.io/apiserver/pkg/cel/mutation"
)

// The variables of expressions. Params and the last two are not always there.
const (
	Object            = "object"
	OldObject         = "oldObject"
	Request           = "request"
	NamespaceObject   = "namespaceObject"
	Params            = "params"
	Authorizer        = "authorizer"
	RequestAuthorizer = "authorizer.requestResource"
)

// Variables is where the values of other expressions are.
const Variables = "variables"

// Uses says what expressions may use that not all may: the first two are
// variables, Patches the types of which patches are made.
type Uses struct{ Params, Authorizer, Patches bool }

// An Error says why an expression cannot be used.
type Error struct {
	Internal bool // it is not the expression's fault
	Detail   string
}

// Error is part of error.
func (e *Error) Error() string { return e.Detail }

// An Expression is one that can be evaluated.
type Expression struct {
	cel.Program

	Text string
	Type *cel.Type
}

var envs = func() map[Uses]func() (*environment.EnvSet, error) {
	all := map[Uses]func() (*environment.EnvSet, error){}
	for i := range 8 {
		u := Uses{Params: i&1 > 0, Authorizer: i&2 > 0, Patches: i&4 > 0}
		all[u] = sync.OnceValues(func() (*environment.EnvSet, error) { return newEnv(u) })
	}
	return all
}()

// newEnv is what expressions know that may use u. To make one takes time.
func newEnv(u Uses) (*environment.EnvSet, error) {
	request, namespace := requestType(), namespaceType()
	opts := []cel.EnvOption{
		cel.Variable(Object, cel.DynType), cel.Variable(OldObject, cel.DynType),
		cel.Variable(NamespaceObject, namespace.CelType()), cel.Variable(Request, request.CelType()),
	}
	if u.Params {
		opts = append(opts, cel.Variable(Params, cel.DynType))
	}
	if u.Authorizer {
		opts = append(opts, cel.Variable(Authorizer, library.AuthorizerType), cel.Variable(RequestAuthorizer, library.ResourceCheckType))
	}
	set, err := environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()).Extend(environment.VersionedOptions{
		IntroducedVersion: always,
		EnvOptions:        opts,
		DeclTypes:         []*apiservercel.DeclType{namespace, request},
	}, environment.StrictCostOpt)
	if err != nil || !u.Patches {
		return set, err
	}
	return withPatches(set)
}

// withPatches is a set that knows the types of patches besides. They come
// last: what is known by name is not looked for among them.
func withPatches(set *environment.EnvSet) (*environment.EnvSet, error) {
	return set.Extend(environment.VersionedOptions{
		IntroducedVersion: always,
		EnvOptions:        []cel.EnvOption{common.ResolverEnvOption(&mutation.DynamicTypeResolver{}), environment.UnversionedLib(library.JSONPatch)},
	})
}

// The types that patches are of.
var (
	ApplyConfiguration = cel.ObjectType(mutation.ObjectTypeName)
	JSONPatch          = cel.ListType(cel.ObjectType(mutation.JSONPatchTypeName))
)

// always is the version since which expressions know what they are given here.
var always = version.MajorMinor(1, 0)

// Compile makes a program of an expression that is to evaluate to one of some
// types, cel.AnyType for any. One that was stored may use what is not for new
// ones any more.
func Compile(text string, u Uses, stored bool, types ...*cel.Type) (*Expression, *Error) {
	set, err := envs[u]()
	if err != nil {
		return nil, unusable(err)
	}
	return compile(set, text, stored, types)
}

func unusable(err error) *Error {
	return &Error{true, fmt.Sprintf("unexpected error loading CEL environment: %v", err)}
}

func compile(set *environment.EnvSet, text string, stored bool, types []*cel.Type) (*Expression, *Error) {
	env := set.NewExpressionsEnv()
	if stored {
		env = set.StoredExpressionsEnv()
	}
	ast, issues := env.Compile(text)
	if issues != nil {
		return nil, &Error{Detail: "compilation failed: " + issues.String()}
	}
	fits := slices.ContainsFunc(types, func(t *cel.Type) bool { return t == cel.AnyType || ast.OutputType().IsExactType(t) })
	switch {
	case fits:
	case len(types) == 1:
		return nil, &Error{Detail: fmt.Sprintf("must evaluate to %v but got %v", types[0], ast.OutputType())}
	default:
		return nil, &Error{Detail: fmt.Sprintf("must evaluate to one of %v but got %v", types, ast.OutputType())}
	}
	program, err := env.Program(ast, cel.InterruptCheckFrequency(celconfig.CheckFrequency))
	if err != nil {
		return nil, &Error{true, "program instantiation failed: " + err.Error()}
	}
	return &Expression{program, text, ast.OutputType()}, nil
}
