package bootstrap

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"maps"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/registry/cache"
)

func namespaces() (wishes []wish) {
	for _, name := range []string{metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic, corev1.NamespaceNodeLease} {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelMetadataName: name}}}
		wishes = append(wishes, wish{gr: schema.GroupResource{Resource: "namespaces"}, obj: ns, manager: server})
	}
	return wishes
}

func priorities() (wishes []wish) {
	for _, p := range []struct {
		name  string
		value int32
		use   string
	}{
		{"system-node-critical", 2_000_001_000, "Used for system critical pods that must not be moved from their current node."},
		{
			"system-cluster-critical", 2_000_000_000,
			"Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
		},
	} {
		class := &schedulingv1.PriorityClass{
			ObjectMeta: metav1.ObjectMeta{Name: p.name}, Value: p.value, Description: p.use, PreemptionPolicy: new(corev1.PreemptLowerPriority),
		}
		wishes = append(wishes, wish{
			gr: schema.GroupResource{Group: schedulingv1.GroupName, Resource: "priorityclasses"}, obj: class, manager: server,
			finish: func(obj apis.Object) { obj.SetGeneration(1) },
		})
	}
	return wishes
}

var configMaps = schema.GroupResource{Resource: "configmaps"}

// tracking says since when the use of tokens that are kept in secrets is
// written down.
func tracking(now time.Time) wish {
	return wish{gr: configMaps, manager: server, obj: &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: "kube-apiserver-legacy-service-account-token-tracking"},
		Data:       map[string]string{"since": now.UTC().Format(time.DateOnly)},
	}}
}

// authentication tells servers behind this one how to find out who sends a
// request.
func (b *Bootstrap) authentication() (wish, bool) {
	if b.Authentication == nil {
		return wish{}, false
	}
	data := b.Authentication()
	m := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: "extension-apiserver-authentication"}, Data: data,
	}
	return wish{gr: configMaps, manager: server, obj: m, amend: func(have apis.Object) bool {
		m := have.(*corev1.ConfigMap)
		merged := maps.Clone(m.Data)
		if merged == nil {
			merged = map[string]string{}
		}
		maps.Copy(merged, data)
		same := maps.Equal(merged, m.Data)
		m.Data = merged
		return !same
	}}, len(data) > 0
}

var leases = schema.GroupResource{Group: coordinationv1.GroupName, Resource: "leases"}

// Of the lease by which a server is known to be there.
const (
	identityLabel = "apiserver.kubernetes.io/identity"
	leaseLasts    = 3600 // seconds
	renewEvery    = 10 * time.Second
)

// lease says that this server is there.
func (b *Bootstrap) lease(now time.Time) wish {
	name := identity(b.Host)
	l := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: metav1.NamespaceSystem, Name: name,
			Labels: map[string]string{identityLabel: server, corev1.LabelHostname: b.Host},
		},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity: new(name + "_" + b.Hold), LeaseDurationSeconds: new(int32(leaseLasts)),
			RenewTime: new(metav1.NewMicroTime(now)),
		},
	}
	if b.Address != "" {
		l.Annotations = map[string]string{"kubernetes.io/peer-advertise-address": b.Address}
	}
	return wish{gr: leases, obj: l, manager: server, amend: func(have apis.Object) bool {
		was := have.(*coordinationv1.Lease)
		was.Labels, was.Annotations, was.Spec = l.Labels, l.Annotations, l.Spec
		return true
	}}
}

// identity is the name of the server on a host, as upstream makes it: from a
// digest of both the host's name and what it is the server of.
func identity(host string) string {
	h := sha256.New()
	for _, part := range []string{host, server} {
		_ = binary.Write(h, binary.BigEndian, uint16(len(part))) // a digest takes anything
		_, _ = h.Write([]byte(part))
	}
	text := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(h.Sum(nil)[:16])
	return "apiserver-" + strings.ToLower(text)
}

// identities selects the leases of servers.
func identities() cache.Query {
	sel := labels.SelectorFromSet(labels.Set{identityLabel: server})
	return cache.Query{Selection: cache.Selection{Namespace: metav1.NamespaceSystem, Labels: sel}}
}

// outlived reports whether a lease is of a server that is gone.
func (b *Bootstrap) outlived(obj apis.Object) bool {
	l, ok := obj.(*coordinationv1.Lease)
	if !ok || l.Spec.RenewTime == nil || l.Spec.LeaseDurationSeconds == nil {
		return ok // it was never kept
	}
	lasts := time.Duration(*l.Spec.LeaseDurationSeconds) * time.Second
	return l.Spec.RenewTime.Add(lasts).Before(b.Service.Now())
}
