package networking

import (
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/meta"
)

var ingresses = apis.Define(apis.Resource[*networkingv1.Ingress]{
	Plural:   "ingresses",
	Short:    []string{"ing"},
	StoredAt: "ingress",
	Prepare:  meta.KeepStatus[*networkingv1.Ingress],
	Spec:     func(i *networkingv1.Ingress) any { return &i.Spec },
	Subs:     []apis.Sub[*networkingv1.Ingress]{meta.Status[*networkingv1.Ingress](nil)},
})
