package expression

import (
	"fmt"
	"sync/atomic"

	"github.com/google/cel-go/cel"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/common"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/apiserver/pkg/cel/library"
	"k8s.io/apiserver/pkg/cel/openapi"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

var types atomic.Int64

// TypeOf is what expressions know of a kind by its schema, which holds no
// references; nil where that is nothing.
func TypeOf(kind string, s *spec.Schema) *apiservercel.DeclType {
	t := common.SchemaDeclType(&openapi.Schema{Schema: s}, true)
	if t == nil {
		return nil
	}
	return t.MaybeAssignTypeName(fmt.Sprintf("%s%d", kind, types.Add(1)))
}

// A Checker compiles expressions by the types of what they are about.
type Checker struct{ env *cel.Env }

// NewChecker returns a checker of expressions about objects of a type. The
// parameters are of type params where there are any, nil where nothing is
// known of them.
func NewChecker(object, params *apiservercel.DeclType, has bool, variables []admissionregistrationv1.Variable) (*Checker, error) {
	request, namespace := requestType(), namespaceType()
	c := &Compiler{Variables: NewCompiler().Variables}
	known := []*apiservercel.DeclType{namespace, request, c.Variables}
	opts := []cel.EnvOption{
		cel.Variable(NamespaceObject, namespace.CelType()), cel.Variable(Request, request.CelType()),
		cel.Variable(Variables, c.Variables.CelType()), cel.Variable(Authorizer, library.AuthorizerType),
		cel.Variable(RequestAuthorizer, library.ResourceCheckType),
	}
	variable := func(t *apiservercel.DeclType, names ...string) {
		of := cel.DynType
		if t != nil {
			known, of = append(known, t), t.CelType()
		}
		for _, name := range names {
			opts = append(opts, cel.Variable(name, of))
		}
	}
	variable(object, Object, OldObject)
	if has {
		variable(params, Params)
	}
	set, err := environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()).Extend(environment.VersionedOptions{
		IntroducedVersion: always, EnvOptions: opts, DeclTypes: known,
	})
	if err != nil {
		return nil, err
	}
	checker := &Checker{set.StoredExpressionsEnv()}
	for _, v := range variables {
		var t *cel.Type
		if ast, issues := checker.env.Compile(v.Expression); issues == nil {
			t = ast.OutputType()
		}
		c.declare(v.Name, t)
	}
	return checker, nil
}

// Issues is what is wrong with an expression, nothing where it is empty.
func (c *Checker) Issues(text string) string {
	if _, issues := c.env.Compile(text); issues != nil {
		return issues.String()
	}
	return ""
}
