package admit

import (
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// forbid is the error of a request that a rule refuses.
func forbid(r *Request, format string, args ...any) *apierrors.StatusError {
	return apierrors.NewForbidden(r.Kind.GroupResource(), r.name(), fmt.Errorf(format, args...))
}

// Forbidden is the error of a request that is refused because of err, for
// plugins that are elsewhere.
func Forbidden(r *Request, err error) *apierrors.StatusError {
	return apierrors.NewForbidden(r.Kind.GroupResource(), r.name(), err)
}

// forbidFor is the error of a request that is refused because of err.
func forbidFor(r *Request, err error) error {
	if apierrors.IsForbidden(err) {
		return err
	}
	return apierrors.NewForbidden(r.Kind.GroupResource(), r.name(), err)
}

// name is what errors call the object, which may have none yet.
func (r *Request) name() string {
	switch {
	case r.Name != "":
		return r.Name
	case r.Object != nil && r.Object.GetName() != "":
		return r.Object.GetName()
	case r.Object != nil && r.Object.GetGenerateName() != "":
		return r.Object.GetGenerateName()
	}
	return "Unknown"
}

// pod is the request's pod, nil where it is about something else.
func (r *Request) pod() *corev1.Pod {
	if !r.Is("", "pods") {
		return nil
	}
	p, _ := r.Object.(*corev1.Pod)
	return p
}

// mirror reports whether a pod stands for one that a node runs by itself.
func mirror(p *corev1.Pod) bool {
	_, ok := p.Annotations[corev1.MirrorPodAnnotationKey]
	return ok
}

// joined makes one error of several, as the stock server words it.
func joined(errs []error) error {
	switch len(errs) {
	case 0:
		return nil
	case 1:
		return errs[0]
	}
	var texts []string
	for _, err := range errs {
		texts = append(texts, err.Error())
	}
	return errors.New("[" + strings.Join(texts, ", ") + "]")
}
