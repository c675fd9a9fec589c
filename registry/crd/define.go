package crd

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kubeversion "k8s.io/apimachinery/pkg/version"
	"k8s.io/client-go/util/jsonpath"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/knarr-dev/knarr/apis"
)

// define is the definition of one version of the family.
func (f *family) define(v *version) *apis.Definition {
	names, check := f.Status.AcceptedNames, newChecker(v)
	d := &apis.Definition{
		GroupVersionKind: v.gvk,

		Plural: names.Plural, Short: names.ShortNames, Categories: names.Categories,
		Scope: apis.Scope(f.Spec.Scope == apiextensionsv1.ClusterScoped), Verbs: apis.AllVerbs,
		StoredAt:   f.Spec.Group + "/" + names.Plural,
		Deprecated: f.deprecated(v),

		New: func() apis.Object {
			u := &unstructured.Unstructured{}
			u.SetGroupVersionKind(v.gvk)
			return u
		},
		Default:  f.Default,
		Prepare:  func(_, _ apis.Object) {},
		Validate: check.validate,
		Warn:     warn,
		Name:     validation.NameIsDNSSubdomain,
		Spec:     func(obj apis.Object) any { return without(obj, "metadata") },
		Fields:   v.fields(),
		Columns:  v.columns(),
		Lifetime: apis.Lifetime[apis.Object]{
			NeedsVersion: true,
			Held:         func(apis.Object) bool { return false },
			Leave:        func(apis.Object) {},
		},
		Custom: &apis.Custom{
			Singular: names.Singular, List: names.ListKind, Storage: f.storage, Ending: ending(f.CustomResourceDefinition), Known: f.known,
			Schema: func(v3 bool) *spec.Schema { return f.published(v, v3) }, Digest: f.digest(v),
		},
	}
	if v.hasStatus() {
		d.Prepare = keepStatus
		d.Spec = func(obj apis.Object) any { return without(obj, "metadata", "status") }
		d.Subs = []apis.Sub[apis.Object]{{
			Name: "status", Keeps: []string{"metadata", "spec"}, Edit: editStatus,
			Prepare: func(_, _ apis.Object) {}, Validate: check.validateStatus,
			Warn: func(_, _ apis.Object) []string { return nil },
		}}
	}
	if v.hasScale() {
		d.Scale = scale(v.Subresources.Scale)
	}
	return d
}

// deprecated is what clients of a version are warned of, "" for nothing.
func (f *family) deprecated(v *version) string {
	if !v.Deprecated {
		return ""
	}
	if v.DeprecationWarning != nil {
		return *v.DeprecationWarning
	}
	text := fmt.Sprintf("%s/%s %s is deprecated", f.Spec.Group, v.Name, f.Spec.Names.Kind)
	better := ""
	for _, o := range f.Spec.Versions {
		newer := kubeversion.CompareKubeAwareVersionStrings(o.Name, v.Name) > 0
		if o.Served && !o.Deprecated && newer && (better == "" || kubeversion.CompareKubeAwareVersionStrings(o.Name, better) > 0) {
			better = o.Name
		}
	}
	if better != "" {
		text += fmt.Sprintf("; use %s/%s %s", f.Spec.Group, better, f.Spec.Names.Kind)
	}
	return text
}

// without is the content of an object but for some of its fields.
func without(obj apis.Object, names ...string) map[string]any {
	rest := map[string]any{}
	for name, value := range obj.(*unstructured.Unstructured).Object {
		if !slices.Contains(names, name) {
			rest[name] = value
		}
	}
	return rest
}

// keepStatus makes a write of the object leave its status alone.
func keepStatus(obj, old apis.Object) {
	u := obj.(*unstructured.Unstructured)
	delete(u.Object, "status")
	if was, ok := old.(*unstructured.Unstructured); ok {
		if status, has := was.Object["status"]; has {
			u.Object["status"] = status
		}
	}
}

// editStatus carries over the status and nothing else.
func editStatus(into, obj apis.Object) {
	u := into.(*unstructured.Unstructured)
	delete(u.Object, "status")
	if status, has := obj.(*unstructured.Unstructured).Object["status"]; has {
		u.Object["status"] = status
	}
}

// scale says where a kind keeps its number of replicas.
func scale(s *apiextensionsv1.CustomResourceSubresourceScale) *apis.Scale[apis.Object] {
	number := func(obj apis.Object, path string) int32 {
		n, _, err := unstructured.NestedInt64(obj.(*unstructured.Unstructured).Object, steps(path)...)
		if err != nil {
			return 0 // validation does not let it be
		}
		return int32(n)
	}
	return &apis.Scale[apis.Object]{
		Wanted: func(obj apis.Object) *int32 {
			if _, has, err := unstructured.NestedFieldNoCopy(obj.(*unstructured.Unstructured).Object, steps(s.SpecReplicasPath)...); !has || err != nil {
				return nil
			}
			return new(number(obj, s.SpecReplicasPath))
		},
		Has: func(obj apis.Object) int32 { return number(obj, s.StatusReplicasPath) },
		Selector: func(obj apis.Object) string {
			if s.LabelSelectorPath == nil || *s.LabelSelectorPath == "" {
				return ""
			}
			text, _, err := unstructured.NestedString(obj.(*unstructured.Unstructured).Object, steps(*s.LabelSelectorPath)...)
			if err != nil {
				return ""
			}
			return text
		},
		Want: func(obj apis.Object, n int32) {
			// It fails where something on the path is no object, which validation tells.
			_ = unstructured.SetNestedField(obj.(*unstructured.Unstructured).Object, int64(n), steps(s.SpecReplicasPath)...)
		},
		Path: strings.TrimPrefix(s.SpecReplicasPath, "."),
	}
}

// fields are what objects of the version can be selected by.
func (v *version) fields() map[string]func(apis.Object) string {
	all := map[string]func(apis.Object) string{}
	for _, f := range v.SelectableFields {
		find, err := finder(f.JSONPath)
		if err != nil {
			continue // newFamily has refused it
		}
		all[strings.TrimPrefix(f.JSONPath, ".")] = func(obj apis.Object) string {
			if value, ok := find(obj); ok && value != nil {
				return fmt.Sprint(value)
			}
			return ""
		}
	}
	return all
}

// paths are where columns and fields to select by are found.
func (v *version) paths() (all []string) {
	for _, c := range v.AdditionalPrinterColumns {
		all = append(all, c.JSONPath)
	}
	for _, f := range v.SelectableFields {
		all = append(all, f.JSONPath)
	}
	return all
}

// finder returns what finds the first value at a JSON path.
func finder(path string) (func(apis.Object) (any, bool), error) {
	p := jsonpath.New("").AllowMissingKeys(true)
	if err := p.Parse("{" + path + "}"); err != nil {
		return nil, err
	}
	return func(obj apis.Object) (any, bool) {
		found, err := p.FindResults(obj.(*unstructured.Unstructured).Object)
		if err != nil || len(found) == 0 || len(found[0]) == 0 {
			return nil, false
		}
		return found[0][0].Interface(), true
	}, nil
}

// columns are the name and what the definition says, or the age.
func (v *version) columns() []apis.Column[apis.Object] {
	all := []apis.Column[apis.Object]{{Name: "Name", Cell: func(obj apis.Object, _ time.Time) any { return obj.GetName() }}}
	cols := v.AdditionalPrinterColumns
	if len(cols) == 0 {
		cols = []apiextensionsv1.CustomResourceColumnDefinition{{
			Name: "Age", Type: "date", JSONPath: ".metadata.creationTimestamp", Description: metav1.ObjectMeta{}.SwaggerDoc()["creationTimestamp"],
		}}
	}
	for _, c := range cols {
		find, err := finder(c.JSONPath)
		if err != nil {
			continue // likewise
		}
		text := c.Description
		if text == "" {
			text = "Custom resource definition column (in JSONPath format): " + c.JSONPath
		}
		all = append(all, apis.Column[apis.Object]{
			Name: c.Name, Type: c.Type, Format: c.Format, Description: text, Priority: c.Priority,
			Cell: func(obj apis.Object, now time.Time) any {
				value, ok := find(obj)
				if !ok || value == nil && c.Type != "string" {
					return nil
				}
				return cell(c.Type, value, now)
			},
		})
	}
	return all
}

// cell is a value as a column of a type shows it, nil where it is none.
func cell(typ string, value any, now time.Time) any {
	switch v := value.(type) {
	case int64:
		switch typ {
		case "integer":
			return v
		case "number":
			return float64(v)
		}
	case float64:
		switch typ {
		case "integer":
			return int64(v)
		case "number":
			return v
		}
	case bool:
		if typ == "boolean" {
			return v
		}
	case string:
		if typ == "date" {
			var when metav1.Time
			if when.UnmarshalQueryParameter(v) != nil {
				return "<invalid>"
			}
			return apis.Age(when, now)
		}
	}
	if typ != "string" {
		return nil
	}
	var b bytes.Buffer
	if jsonpath.New("").PrintResults(&b, []reflect.Value{reflect.ValueOf(value)}) != nil {
		return nil
	}
	return b.String()
}
