package up

import (
	"context"
	"fmt"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/knarr-dev/knarr/cmd/knarr/addons"
	"github.com/knarr-dev/knarr/cmd/knarr/pki"
	"github.com/knarr-dev/knarr/kubelet/image"
)

// applyAddons makes what a cluster has from the start besides what every API
// server makes: the server's right to use kubelets, and DNS.
func (d *dir) applyAddons(ctx context.Context, client kubernetes.Interface, plan *Options) error {
	others, err := d.members()
	if err != nil {
		return err
	}
	address, err := dnsAddress(plan.ServiceRange)
	if err != nil {
		return fmt.Errorf("find an address for the cluster's DNS: %w", err)
	}
	objects := addons.DNS(addons.DNSOptions{
		Image: image.Demo, ClusterIP: address, Zone: "cluster.local", Replicas: addons.DNSReplicas(1 + len(others)),
	})
	return addons.Apply(ctx, client, append(objects, kubeletAccess()))
}

// kubeletAccess lets the API server use kubelets.
func kubeletAccess() *rbacv1.ClusterRoleBinding {
	return &rbacv1.ClusterRoleBinding{
		TypeMeta:   metav1.TypeMeta{APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: "ClusterRoleBinding"},
		ObjectMeta: metav1.ObjectMeta{Name: "knarr:kubelet-api"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "system:kubelet-api-admin"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: pki.KubeletClientUser}},
	}
}
