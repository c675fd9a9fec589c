package bootstrap

import (
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/apiregistration"
	"github.com/knarr-dev/knarr/registry/discovery"
)

// services say that this server serves the group versions that are built in.
func (b *Bootstrap) services() (wishes []wish) {
	done := map[schema.GroupVersion]bool{}
	for _, k := range b.Service.Kinds() {
		for _, f := range k.Forms() {
			gv := f.Wire.GroupVersion()
			p, known := discovery.BuiltIn(gv)
			if k.Custom != nil || !known || done[gv] {
				continue
			}
			done[gv] = true
			wishes = append(wishes, service(gv, p))
		}
	}
	return wishes
}

func service(gv schema.GroupVersion, p discovery.Priority) wish {
	want := &apiregistrationv1.APIService{
		ObjectMeta: metav1.ObjectMeta{
			Name: gv.Version + "." + gv.Group, Labels: map[string]string{apiregistration.Automanaged: apiregistration.OnStart},
		},
		Spec: apiregistrationv1.APIServiceSpec{
			Group: gv.Group, Version: gv.Version, GroupPriorityMinimum: p.Group, VersionPriority: p.Version,
		},
	}
	return wish{gr: apiregistrationv1.Resource("apiservices"), obj: want, manager: server, amend: func(have apis.Object) bool {
		s := have.(*apiregistrationv1.APIService)
		managed := s.Labels[apiregistration.Automanaged]
		if managed != apiregistration.OnStart && managed != apiregistration.Always || apiequality.Semantic.DeepEqual(s.Spec, want.Spec) {
			return false
		}
		s.Spec = want.Spec
		apiregistration.SetLocal(s, metav1.Now())
		return true
	}}
}
