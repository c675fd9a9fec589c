package core

import (
	"net"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/meta"
)

var endpoints = apis.Define(apis.Resource[*corev1.Endpoints]{
	Plural:   "endpoints",
	Short:    []string{"ep"},
	StoredAt: "services/endpoints",
	Columns: []apis.Column[*corev1.Endpoints]{
		{Name: "Endpoints", Cell: func(e *corev1.Endpoints, _ time.Time) any { return printEndpoints(e) }},
	},
	Lifetime: apis.Lifetime[*corev1.Endpoints]{UpsertsOnUpdate: true},
})

func printEndpoints(e *corev1.Endpoints) string {
	if len(e.Subsets) == 0 {
		return "<none>"
	}
	var all []string
	for _, subset := range e.Subsets {
		if len(subset.Ports) == 0 {
			for _, address := range subset.Addresses {
				all = append(all, address.IP)
			}
		}
		for _, port := range subset.Ports {
			for _, address := range subset.Addresses {
				all = append(all, net.JoinHostPort(address.IP, strconv.Itoa(int(port.Port))))
			}
		}
	}
	return meta.Some(all, 3)
}
