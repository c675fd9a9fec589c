// Package rootca publishes in each namespace the certificates by which a pod
// knows the API server.
package rootca

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-dev/knarr/ctrl"
)

const (
	name           = "kube-root-ca.crt"
	descriptionKey = "kubernetes.io/description"
	// description is read by users, and by tools that look for it.
	description = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. " +
		"No other usage is guaranteed across distributions of Kubernetes clusters."
)

// New is the controller for a bundle of PEM certificates. The bundle is asked
// for at each look, so that it may be rotated; each namespace is looked at
// again when something about it changes.
func New(bundle func() string) ctrl.Erased {
	return ctrl.Controller[*corev1.Namespace, input]{
		Name:    "root-ca-certificate-publisher-controller",
		Account: "root-ca-cert-publisher",
		Reads: []ctrl.Read{
			ctrl.Watch(wake).Only(ctrl.Filter{Field: "metadata.name=" + name}),
		},
		Writes: []ctrl.Write{ctrl.May(&corev1.ConfigMap{}, ctrl.Create, ctrl.Update)},
		Gather: func(w ctrl.World, ns *corev1.Namespace) input {
			return input{ns, ctrl.Get[*corev1.ConfigMap](w, ns.Name, name), map[string]string{"ca.crt": bundle()}}
		},
		Decide: decide,
	}.Erase()
}

type input struct {
	ns   *corev1.Namespace
	have *corev1.ConfigMap
	want map[string]string
}

func wake(_ ctrl.World, old, cm *corev1.ConfigMap) []ctrl.Key {
	if cm == nil {
		cm = old
	}
	return []ctrl.Key{{Name: cm.Namespace}}
}

func decide(in input) ctrl.Plan {
	switch {
	case !ctrl.Living(in.ns):
		return ctrl.Plan{}
	case in.have == nil:
		return ctrl.Plan{Do: []ctrl.Action{{Verb: ctrl.Create, Obj: &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: in.ns.Name, Name: name, Annotations: map[string]string{descriptionKey: description}},
			Data:       in.want,
		}}}}
	case maps.Equal(in.have.Data, in.want) && in.have.Annotations[descriptionKey] != "":
		return ctrl.Plan{}
	}
	cm := in.have.DeepCopy()
	cm.Data = in.want
	metav1.SetMetaDataAnnotation(&cm.ObjectMeta, descriptionKey, description)
	return ctrl.Plan{Do: []ctrl.Action{{Verb: ctrl.Update, Obj: cm}}}
}
