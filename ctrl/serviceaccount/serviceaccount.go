// Package serviceaccount gives each namespace the account that its pods run
// as where they name none.
package serviceaccount

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-dev/knarr/ctrl"
)

const name = "default"

// Controller is the service account controller.
var Controller = ctrl.Controller[*corev1.Namespace, input]{
	Name:    "serviceaccount-controller",
	Account: "service-account-controller",
	Reads: []ctrl.Read{
		ctrl.Watch(wake).Only(ctrl.Filter{Field: "metadata.name=" + name}),
	},
	Writes: []ctrl.Write{ctrl.May(&corev1.ServiceAccount{}, ctrl.Create)},
	Gather: func(w ctrl.World, ns *corev1.Namespace) input {
		return input{ns, ctrl.Get[*corev1.ServiceAccount](w, ns.Name, name)}
	},
	Decide: decide,
}.Erase()

type input struct {
	ns   *corev1.Namespace
	have *corev1.ServiceAccount
}

// wake wakes the namespace that lost its account.
func wake(_ ctrl.World, old, sa *corev1.ServiceAccount) []ctrl.Key {
	if sa != nil {
		return nil
	}
	return []ctrl.Key{{Name: old.Namespace}}
}

func decide(in input) ctrl.Plan {
	if in.have != nil || !ctrl.Living(in.ns) {
		return ctrl.Plan{}
	}
	sa := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: in.ns.Name, Name: name}}
	return ctrl.Plan{Do: []ctrl.Action{{Verb: ctrl.Create, Obj: sa}}}
}
