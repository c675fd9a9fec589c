package aggregate

import (
	"context"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/apiregistration"
	"github.com/knarr-dev/knarr/registry/discovery"
	"github.com/knarr-dev/knarr/registry/rest"
)

// manager is in whose name the server owns fields.
const manager = "kube-apiserver"

// keep makes, changes or deletes an APIService as the definitions want it.
// One that somebody else looks after it leaves alone.
func (s *Servers) keep(ctx context.Context, name string) error {
	have, want := s.known[name], s.wanted(name)
	if have == nil && want == nil {
		return nil
	}
	if have == nil {
		_, err := s.kind.Main().Create(ctx, &rest.Call{Manager: manager}, want)
		if apierrors.IsAlreadyExists(err) {
			return nil // by another server, of which an event will tell
		}
		return err
	}
	switch have.Labels[apiregistration.Automanaged] {
	case apiregistration.Always:
		if want == nil && !here(have) {
			return s.remove(ctx, have)
		}
	case apiregistration.OnStart:
		if want == nil && !here(have) && !s.began {
			return s.remove(ctx, have) // of what a server before this one served
		}
		want = nil
	default:
		want = nil
	}
	return s.correct(ctx, have, want)
}

// here reports whether an APIService is of what is built in.
func here(s *apiregistrationv1.APIService) bool {
	_, ok := discovery.BuiltIn(schema.GroupVersion{Group: s.Spec.Group, Version: s.Spec.Version})
	return ok
}

// wanted is the APIService that stands for a version of custom kinds, nil
// where none is called for by that name.
func (s *Servers) wanted(name string) *apiregistrationv1.APIService {
	for _, c := range s.defined {
		for _, v := range c.Spec.Versions {
			if !v.Served || v.Name+"."+c.Spec.Group != name {
				continue
			}
			return &apiregistrationv1.APIService{
				ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{apiregistration.Automanaged: apiregistration.Always}},
				Spec: apiregistrationv1.APIServiceSpec{
					Group: c.Spec.Group, Version: v.Name,
					GroupPriorityMinimum: discovery.Custom.Group, VersionPriority: discovery.Custom.Version,
				},
			}
		}
	}
	return nil
}

func (s *Servers) remove(ctx context.Context, have *apiregistrationv1.APIService) error {
	_, err := s.kind.Delete(ctx, &rest.Call{Name: have.Name}, &metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(have.UID))})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // it is another by now, of which an event will tell
	}
	return err
}

// correct makes an APIService say what is wanted, if anything is, and that
// what this server serves is available.
func (s *Servers) correct(ctx context.Context, have, want *apiregistrationv1.APIService) error {
	if want != nil && !apiequality.Semantic.DeepEqual(have.Spec, want.Spec) {
		_, err := s.kind.Edit(ctx, &rest.Call{Name: have.Name, Manager: manager}, func(obj apis.Object) error {
			obj.(*apiregistrationv1.APIService).Spec = want.Spec
			return nil
		})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err // an event will tell of the new one, whose status is looked at then
	}
	if have.Spec.Service != nil || !apiregistration.SetLocal(have.DeepCopy(), metav1.Time{}) {
		return nil // another server sees to it, or it is so
	}
	return s.rewrite(ctx, have, func(now *apiregistrationv1.APIService) {
		if now.Spec.Service == nil {
			apiregistration.SetLocal(now, s.now())
		}
	})
}

// now is the time as objects keep it.
func (s *Servers) now() metav1.Time { return metav1.NewTime(s.Service.Now()).Rfc3339Copy() }

// rewrite changes the status of an APIService, unless it is another by now.
// Where there is nothing to change nothing is written.
func (s *Servers) rewrite(ctx context.Context, of *apiregistrationv1.APIService, change func(now *apiregistrationv1.APIService)) error {
	_, err := s.kind.Rewrite(ctx, &rest.Call{Name: of.Name}, func(obj apis.Object) error {
		if now, ok := obj.(*apiregistrationv1.APIService); ok && now.UID == of.UID {
			change(now)
		}
		return nil
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
