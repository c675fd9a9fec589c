package connect

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-dev/knarr/registry/rest"
)

// Address is where a service's port is reached: at the address of the service,
// behind which the service proxy chooses an endpoint.
func Address(ctx context.Context, svc *rest.Service, namespace, name string, port int32) (string, error) {
	obj, err := svc.Lookup(ctx, corev1.Resource("services"), namespace, name)
	if err != nil {
		return "", err
	}
	s, ok := obj.(*corev1.Service)
	if !ok {
		return "", fmt.Errorf("%T is no service", obj)
	}
	host := s.Spec.ClusterIP
	switch {
	case s.Spec.Type == corev1.ServiceTypeExternalName:
		return net.JoinHostPort(s.Spec.ExternalName, strconv.Itoa(int(port))), nil
	case host == "" || host == corev1.ClusterIPNone:
		return "", fmt.Errorf("no service address found for service %q", name)
	case !slices.ContainsFunc(s.Spec.Ports, func(p corev1.ServicePort) bool { return p.Port == port }):
		return "", apierrors.NewServiceUnavailable(fmt.Sprintf("no service port %d found for service %q", port, name))
	}
	return net.JoinHostPort(host, strconv.Itoa(int(port))), nil
}
