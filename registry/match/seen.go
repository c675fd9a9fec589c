package match

import (
	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/registry/admit"
	"github.com/knarr-dev/knarr/registry/rest"
	"github.com/knarr-dev/knarr/registry/wire"
)

// A Seen is a request as it was meant: its objects are of the kind of As, and
// say so. Nobody may change them. It is no longer true once the request's
// object is changed.
type Seen struct {
	As

	Object, Old runtime.Object // nil where there is none

	request *admit.Request
	svc     *rest.Service
}

// See returns a request as it is meant.
func (as *As) See(svc *rest.Service, r *admit.Request) (*Seen, error) {
	s := &Seen{As: *as, request: r, svc: svc}
	if r.Connects != nil {
		s.Object = r.Connects
		return s, nil
	}
	var err error
	if s.Object, err = s.show(r.Object); err != nil {
		return nil, err
	}
	s.Old, err = s.show(r.Old)
	return s, err
}

// show is an object of the request as one of the kind that is seen.
func (s *Seen) show(obj apis.Object) (runtime.Object, error) {
	if obj == nil {
		return nil, nil
	}
	if s.request.Sub == "scale" {
		return s.version(s.request.Kind.GroupVersionKind).ScaleOf(obj), nil
	}
	f := s.shape()
	if f == nil { // what a subresource takes
		return typed(obj, s.Kind), nil
	}
	shown, err := f.In(obj)
	if err != nil {
		return nil, err
	}
	return typed(shown, s.Kind), nil
}

// shape is the form of what is seen; nil for what a subresource takes.
func (s *Seen) shape() *rest.Form {
	if s.form != nil {
		return s.form
	}
	return s.version(s.Kind)
}

// version is the form of the request's kind that is called gvk, nil if none is.
func (s *Seen) version(gvk schema.GroupVersionKind) *rest.Form {
	for _, f := range s.svc.Versions(s.request.Kind.GroupResource()) {
		if f.Wire.GroupVersionKind == gvk {
			return f
		}
	}
	return nil
}

// typed is an object that says what it is.
func typed(obj apis.Object, gvk schema.GroupVersionKind) runtime.Object {
	if obj.GetObjectKind().GroupVersionKind() == gvk {
		return obj
	}
	told := obj.DeepCopyObject()
	told.GetObjectKind().SetGroupVersionKind(gvk)
	return told
}

// Take makes the request be about an object that is like that seen, given in
// JSON: fields that are not known are taken away, and defaults are set.
func (s *Seen) Take(text []byte) error {
	r := s.request
	switch {
	case r.Connects != nil:
		return s.connects(text)
	case r.Sub == "scale":
		return s.rescale(text)
	}
	f := s.shape()
	if f == nil {
		return s.takePart(text)
	}
	obj, _, err := f.Wire.Decode(wire.JSON, text, wire.Ignore)
	if err != nil {
		return err
	}
	if r.Kind.Custom != nil {
		f.Default(obj)
	}
	if r.Object, err = f.Back(obj, r.Resource.GroupVersion()); err != nil {
		return err
	}
	if r.Kind.Custom == nil {
		r.Kind.Default(r.Object)
	}
	return nil
}

// Review is the request as those are told of it that are asked, without a UID.
func (s *Seen) Review() *admissionv1.AdmissionRequest {
	r := s.request
	user := authenticationv1.UserInfo{
		Username: r.User.Name, UID: r.User.UID, Groups: r.User.Groups, Extra: map[string]authenticationv1.ExtraValue{},
	}
	for key, values := range r.User.Extra {
		user.Extra[key] = values
	}
	kind, resource := metav1.GroupVersionKind(r.Sent), metav1.GroupVersionResource(r.Resource)
	return &admissionv1.AdmissionRequest{
		Kind: metav1.GroupVersionKind(s.Kind), Resource: metav1.GroupVersionResource(s.Resource), SubResource: r.Sub,
		RequestKind: &kind, RequestResource: &resource, RequestSubResource: r.Sub,
		Name: nameOf(r), Namespace: namespaceOf(r), Operation: admissionv1.Operation(r.Operation), UserInfo: user,
		Object: runtime.RawExtension{Object: s.Object}, OldObject: runtime.RawExtension{Object: s.Old},
		DryRun: &r.DryRun, Options: runtime.RawExtension{Object: options(r)},
	}
}

// options are those of the request's operation: a patch is one or the other.
func options(r *admit.Request) runtime.Object {
	meta := func(kind string) metav1.TypeMeta { return metav1.TypeMeta{Kind: kind, APIVersion: "meta.k8s.io/v1"} }
	dry, manager, validation := []string(nil), "", ""
	switch o := r.Options.(type) {
	case *metav1.PatchOptions:
		dry, manager, validation = o.DryRun, o.FieldManager, o.FieldValidation
	case *metav1.UpdateOptions:
		if r.Operation == admit.Update {
			return o
		}
		dry, manager, validation = o.DryRun, o.FieldManager, o.FieldValidation
	default:
		return r.Options
	}
	if r.Operation == admit.Create {
		return &metav1.CreateOptions{TypeMeta: meta("CreateOptions"), DryRun: dry, FieldManager: manager, FieldValidation: validation}
	}
	return &metav1.UpdateOptions{TypeMeta: meta("UpdateOptions"), DryRun: dry, FieldManager: manager, FieldValidation: validation}
}

// content is an object as expressions see it, nil where there is none.
func content(obj runtime.Object) (any, error) {
	switch o := obj.(type) {
	case nil:
		return nil, nil
	case *unstructured.Unstructured:
		return o.Object, nil
	}
	return runtime.DefaultUnstructuredConverter.ToUnstructured(obj)
}
