package expression

import (
	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types/traits"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"
)

// A Compiler compiles expressions that may use the values of others, by their
// names in variables. It is for one who compiles.
type Compiler struct {
	Variables *apiservercel.DeclType // what there is so far

	envs map[Uses]*environment.EnvSet
}

// NewCompiler returns a compiler that knows no variables yet.
func NewCompiler() *Compiler {
	return &Compiler{
		Variables: apiservercel.NewObjectType("kubernetes.variables", map[string]*apiservercel.DeclField{}),
		envs:      map[Uses]*environment.EnvSet{},
	}
}

// Compile is the package's Compile for expressions that may use variables.
func (c *Compiler) Compile(text string, u Uses, stored bool, types ...*cel.Type) (*Expression, *Error) {
	set := c.envs[u]
	if set == nil {
		var err error
		if set, err = c.newEnv(u); err != nil {
			return nil, unusable(err)
		}
		c.envs[u] = set
	}
	return compile(set, text, stored, types)
}

// newEnv is what expressions know that may use u and variables. Those that are
// declared later are known too.
func (c *Compiler) newEnv(u Uses) (*environment.EnvSet, error) {
	base, err := envs[Uses{Params: u.Params, Authorizer: u.Authorizer}]()
	if err != nil {
		return nil, err
	}
	set, err := c.with(base)
	if err != nil || !u.Patches {
		return set, err
	}
	return withPatches(set)
}

// with is a set that knows of variables besides.
func (c *Compiler) with(set *environment.EnvSet) (*environment.EnvSet, error) {
	return set.Extend(environment.VersionedOptions{
		IntroducedVersion: always,
		EnvOptions:        []cel.EnvOption{cel.Variable(Variables, c.Variables.CelType())},
		DeclTypes:         []*apiservercel.DeclType{c.Variables},
	})
}

// Declare compiles an expression whose value is to be known by a name to those
// that are compiled later. It is known even if the expression cannot be used.
func (c *Compiler) Declare(name, text string, u Uses, stored bool) (*Expression, *Error) {
	e, err := c.Compile(text, u, stored, cel.AnyType)
	var t *cel.Type
	if err == nil {
		t = e.Type
	}
	c.declare(name, t)
	return e, err
}

func (c *Compiler) declare(name string, t *cel.Type) {
	c.Variables.Fields[name] = apiservercel.NewDeclField(name, declared(t), true, nil, nil)
}

var scalars = map[*cel.Type]*apiservercel.DeclType{
	cel.AnyType: apiservercel.AnyType, cel.BoolType: apiservercel.BoolType, cel.BytesType: apiservercel.BytesType,
	cel.DoubleType: apiservercel.DoubleType, cel.DurationType: apiservercel.DurationType, cel.IntType: apiservercel.IntType,
	cel.NullType: apiservercel.NullType, cel.StringType: apiservercel.StringType, cel.TimestampType: apiservercel.TimestampType,
	cel.UintType: apiservercel.UintType,
}

// declared is t as the type of a field. As upstream: of an object's type
// nothing is known there.
func declared(t *cel.Type) *apiservercel.DeclType {
	if t == nil {
		return apiservercel.DynType
	}
	if s, ok := scalars[t]; ok {
		return s
	}
	if of := t.Parameters(); t.HasTrait(traits.ContainerType) && t.HasTrait(traits.IndexerType) {
		switch len(of) {
		case 1:
			return apiservercel.NewListType(declared(of[0]), -1)
		case 2:
			return apiservercel.NewMapType(declared(of[0]), declared(of[1]), -1)
		}
	}
	return apiservercel.DynType
}
