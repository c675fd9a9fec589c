package addons

import (
	"context"
	"maps"
	"net/netip"
	"testing"
	"time"

	miekg "github.com/miekg/dns"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"

	server "github.com/knarr-dev/knarr/proxy/dns"
	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/assembly"
	"github.com/knarr-dev/knarr/registry/registrytest"
)

// TestCluster has the API server take the objects, and give the account that
// is among them what the DNS needs to answer, and no more.
func TestCluster(t *testing.T) {
	api := registrytest.Run(t, registrytest.TLS, registrytest.With(func(c *assembly.Config) {
		c.Services.Ranges = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}
	}))
	client := func(user registry.User) kubernetes.Interface {
		cfg := api.Client(user)
		cfg.ContentType = runtime.ContentTypeProtobuf
		c, err := kubernetes.NewForConfig(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	admin := client(registrytest.Admin)
	ctx := t.Context()
	apply := func(n int32) map[string]string {
		t.Helper()
		if err := Apply(ctx, admin, dns(n)); err != nil {
			t.Fatal(err)
		}
		return revisions(ctx, t, admin)
	}
	first := apply(1)
	if again := apply(1); !maps.Equal(first, again) {
		t.Errorf("applied again, they change: %v, then %v", first, again)
	}
	deployments := admin.AppsV1().Deployments("kube-system")
	scale := &autoscalingv1.Scale{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "kube-dns"}, Spec: autoscalingv1.ScaleSpec{Replicas: 3}}
	if _, err := deployments.UpdateScale(ctx, "kube-dns", scale, metav1.UpdateOptions{FieldManager: "kubectl"}); err != nil {
		t.Fatal(err)
	}
	apply(2)
	if d, err := deployments.Get(ctx, "kube-dns", metav1.GetOptions{}); err != nil || *d.Spec.Replicas != 3 {
		t.Errorf("of 3 that somebody wanted there are %d: %v", *d.Spec.Replicas, err)
	}

	account := client(registry.User{
		Name: "system:serviceaccount:kube-system:kube-dns", Groups: []string{"system:serviceaccounts", "system:serviceaccounts:kube-system", registry.Authenticated},
	})
	if _, err := account.CoreV1().Pods("").List(ctx, metav1.ListOptions{}); err == nil {
		t.Error("it may read pods")
	}
	s, err := server.New(ctx, server.Config{Client: account, Listen: []string{"127.0.0.1:0"}})
	if err != nil {
		t.Fatal(err)
	}
	work, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- s.Run(work) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	for _, name := range []string{"kube-dns.kube-system.svc.cluster.local.", "ns.dns.cluster.local."} {
		eventually(t, name, func() string { return ask(t, s, name) }, "10.96.0.10")
	}
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.77", Ports: []corev1.ServicePort{{Port: 80}}}}
	if _, err := admin.CoreV1().Services("default").Create(ctx, svc, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "web", func() string { return ask(t, s, "web.default.svc.cluster.local.") }, "10.96.0.77")
	if err := admin.CoreV1().Services("default").Delete(ctx, "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "web", func() string { return ask(t, s, "web.default.svc.cluster.local.") }, "NXDOMAIN")
}

// revisions are those of what was applied.
func revisions(ctx context.Context, t *testing.T, c kubernetes.Interface) map[string]string {
	t.Helper()
	all := map[string]string{}
	add := func(kind string, obj runtime.Object, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		m, err := meta.Accessor(obj)
		if err != nil {
			t.Fatal(err)
		}
		all[kind] = m.GetResourceVersion()
	}
	d, err := c.AppsV1().Deployments("kube-system").Get(ctx, "kube-dns", metav1.GetOptions{})
	add("deployment", d, err)
	s, err := c.CoreV1().Services("kube-system").Get(ctx, "kube-dns", metav1.GetOptions{})
	add("service", s, err)
	r, err := c.RbacV1().ClusterRoles().Get(ctx, "system:coredns", metav1.GetOptions{})
	add("role", r, err)
	b, err := c.RbacV1().ClusterRoleBindings().Get(ctx, "system:coredns", metav1.GetOptions{})
	add("binding", b, err)
	return all
}

// ask is the address that the server says a name has, or why it has none.
func ask(t *testing.T, s *server.Server, name string) string {
	t.Helper()
	m, err := miekg.ExchangeContext(t.Context(), new(miekg.Msg).SetQuestion(name, miekg.TypeA), s.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range m.Answer {
		if a, ok := r.(*miekg.A); ok {
			return a.A.String()
		}
	}
	return miekg.RcodeToString[m.Rcode]
}

func eventually(t *testing.T, what string, is func() string, want string) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	got := is()
	for end := time.Now().Add(20 * time.Second); got != want; got = is() {
		if time.Now().After(end) {
			t.Fatalf("%s is %s, not %s", what, got, want)
		}
		<-tick.C
	}
}
