package alloc_test

import (
	"context"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/all"
	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/admit"
	"github.com/knarr-dev/knarr/registry/alloc"
	"github.com/knarr-dev/knarr/registry/cache"
	"github.com/knarr-dev/knarr/registry/memory"
	"github.com/knarr-dev/knarr/registry/patch"
	"github.com/knarr-dev/knarr/registry/rest"
)

// A server is one API server's part that has to do with services.
type server struct {
	*rest.Service

	alloc    *alloc.Allocator
	services *rest.Kind
}

// serve starts a server on a store. Several may share one.
func serve(t testing.TB, store registry.Store, ranges ...string) *server {
	t.Helper()
	svc := &rest.Service{
		Store: store, Cache: cache.New(store), Owners: patch.NewOwners(all.Scheme()),
		Now: time.Now, NewUID: func() types.UID { return types.UID(uuid.NewString()) },
	}
	svc.Admit = &admit.Chain{World: svc}
	for _, g := range all.Groups {
		for i := range g.Resources {
			// The account of owners takes most of the time that a write takes.
			switch d := &g.Resources[i]; d.Plural {
			case "services", "endpoints", "ipaddresses", "servicecidrs":
				svc.Add(d)
			}
		}
	}
	var cfg alloc.Config
	for _, r := range ranges {
		cfg.Ranges = append(cfg.Ranges, netip.MustParsePrefix(r))
	}
	s := &server{Service: svc, alloc: alloc.New(svc, cfg), services: svc.Kind(corev1.Resource("services"))}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var run sync.WaitGroup
	run.Go(func() { _ = svc.Cache.Run(ctx) }) // it ends with ctx
	t.Cleanup(func() { cancel(); run.Wait() })
	<-svc.Cache.Loaded()
	if err := s.alloc.Start(ctx); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *server) create(ctx context.Context, name, spec string, dryRun bool) (*corev1.Service, error) {
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if err := yaml.UnmarshalStrict([]byte("{"+spec+"}"), &svc.Spec); err != nil {
		return nil, err
	}
	// What every service must say.
	if len(svc.Spec.Ports) == 0 && svc.Spec.Type != corev1.ServiceTypeExternalName {
		svc.Spec.Ports = []corev1.ServicePort{{Port: 1}}
	}
	for i := range svc.Spec.Ports {
		svc.Spec.Ports[i].Name = fmt.Sprint("port-", i)
	}
	w, err := s.services.Main().Create(ctx, &rest.Call{Namespace: "default", DryRun: dryRun}, svc)
	if err != nil {
		return nil, err
	}
	return w.Object.(*corev1.Service), nil
}

func (s *server) update(ctx context.Context, name string, change func(*corev1.ServiceSpec)) (*corev1.Service, error) {
	w, err := s.services.Edit(ctx, &rest.Call{Namespace: "default", Name: name}, func(obj apis.Object) error {
		change(&obj.(*corev1.Service).Spec)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return w.Object.(*corev1.Service), nil
}

func (s *server) remove(t *testing.T, name string) {
	t.Helper()
	if _, err := s.services.Delete(t.Context(), &rest.Call{Namespace: "default", Name: name}, &metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// records lists the addresses that are on record, and for whom.
func (s *server) records(t *testing.T) (all []string) {
	t.Helper()
	page, err := s.Store.List(t.Context(), registry.Query{Prefix: "/registry/ipaddresses/"})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range page.Records {
		is := decode[*networkingv1.IPAddress](t, s.Kind(networkingv1.Resource("ipaddresses")), r)
		all = append(all, is.Name+"="+is.Spec.ParentRef.Name)
	}
	return all
}

func decode[T apis.Object](t *testing.T, k *rest.Kind, r registry.Record) T {
	t.Helper()
	o, err := k.Main().Wire.Object(r.Value, r.Rev)
	if err != nil {
		t.Fatal(err)
	}
	obj, err := o.Decode()
	if err != nil {
		t.Fatal(err)
	}
	return obj.(T)
}

// ports lists the node ports that the map has as taken.
func (s *server) ports(t *testing.T) (all []int) {
	t.Helper()
	r, err := s.Store.Get(t.Context(), "/registry/ranges/servicenodeports")
	if err != nil {
		t.Fatal(err)
	}
	var envelope runtime.Unknown
	if err := envelope.Unmarshal(r.Value[4:]); err != nil {
		t.Fatal(err)
	}
	var m corev1.RangeAllocation
	if err := m.Unmarshal(envelope.Raw); err != nil {
		t.Fatal(err)
	}
	if m.Range != "30000-32767" || envelope.Kind != "RangeAllocation" || envelope.APIVersion != "v1" {
		t.Fatalf("map is of %s %s %s", envelope.APIVersion, envelope.Kind, m.Range)
	}
	bits := new(big.Int).SetBytes(m.Data)
	for i := range bits.BitLen() {
		if bits.Bit(i) == 1 {
			all = append(all, 30000+i)
		}
	}
	return all
}

// told is a spec in short, with what is random named by where it lies.
func told(svc *corev1.Service) string {
	low, static := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.1.1")
	var b strings.Builder
	for _, text := range svc.Spec.ClusterIPs {
		ip, err := netip.ParseAddr(text)
		switch {
		case err != nil || ip.Is4() && low.Compare(ip) <= 0 && ip.Less(static):
			b.WriteString(text + " ")
		case ip.Is4():
			b.WriteString("v4 ")
		default:
			b.WriteString("v6 ")
		}
	}
	if svc.Spec.IPFamilyPolicy != nil {
		fmt.Fprintf(&b, "%s %s", *svc.Spec.IPFamilyPolicy, svc.Spec.IPFamilies)
	}
	seen := map[int32]int{}
	name := func(port int32) string {
		switch {
		case port == 0:
			return "-"
		case port < 30086:
			return fmt.Sprint(port)
		case seen[port] == 0:
			seen[port] = len(seen) + 1
		}
		return fmt.Sprint("any", seen[port])
	}
	if slices.ContainsFunc(svc.Spec.Ports, func(p corev1.ServicePort) bool { return p.NodePort != 0 }) {
		for _, p := range svc.Spec.Ports {
			b.WriteString(" " + name(p.NodePort))
		}
	}
	if p := svc.Spec.HealthCheckNodePort; p != 0 {
		b.WriteString(" check " + name(p))
	}
	return b.String()
}

// TestCreate has what the stock server was seen to answer.
func TestCreate(t *testing.T) {
	const taken = "clusterIP: 10.0.0.5, ports: [{port: 80}]"
	tests := []struct{ name, spec, want string }{
		{"any address", "ports: [{port: 80}]", "v4 SingleStack [IPv4]"},
		{"a chosen address", "clusterIP: 10.0.0.9", "10.0.0.9 SingleStack [IPv4]"},
		{"a taken address", "clusterIP: 10.0.0.5", `spec.clusterIPs: Invalid value: ["10.0.0.5"]: failed to allocate IP 10.0.0.5: provided IP is already allocated`},
		{"an address of another range", "clusterIP: 10.1.5.5", `spec.clusterIPs: Invalid value: ["10.1.5.5"]: failed to allocate IP 10.1.5.5: the provided network does not match the current range`},
		{"the range's own address", "clusterIP: 10.0.0.0", `spec.clusterIPs: Invalid value: ["10.0.0.0"]: failed to allocate IP 10.0.0.0: the provided network does not match the current range`},
		{"everybody's address", "clusterIP: 10.0.255.255", `spec.clusterIPs: Invalid value: ["10.0.255.255"]: failed to allocate IP 10.0.255.255: the provided network does not match the current range`},
		{"headless for anything", "clusterIP: None", "None RequireDualStack [IPv4 IPv6]"},
		{"headless for some pods", "clusterIP: None, selector: {a: b}", "None SingleStack [IPv4]"},
		{"no address", "type: ExternalName, externalName: foo.com", ""},
		{"ports of one number share", "type: NodePort, ports: [{port: 80}, {port: 53}, {port: 53, protocol: UDP}]", "v4 SingleStack [IPv4] any1 any2 any2"},
		{"a chosen port is shared", "type: NodePort, ports: [{port: 80}, {port: 80, protocol: UDP, nodePort: 30007}]", "v4 SingleStack [IPv4] 30007 30007"},
		{"chosen ports need not be", "type: NodePort, ports: [{port: 80, nodePort: 30008}, {port: 80, protocol: UDP, nodePort: 30009}]", "v4 SingleStack [IPv4] 30008 30009"},
		{"a taken port", "type: NodePort, ports: [{port: 80, nodePort: 30005, protocol: UDP}]", "spec.ports[0].nodePort: Invalid value: 30005: provided port is already allocated"},
		{"a port twice", "type: NodePort, ports: [{port: 80, nodePort: 30010}, {port: 81, nodePort: 30010}]", "spec.ports[1].nodePort: Invalid value: 30010: provided port is already allocated"},
		{"a port outside", "type: NodePort, ports: [{port: 80, nodePort: 1000}]", "spec.ports[0].nodePort: Invalid value: 1000: provided port is not in the valid range. The range of valid ports is 30000-32767"},
		{"a port for health", "type: LoadBalancer, externalTrafficPolicy: Local, ports: [{port: 80}]", "v4 SingleStack [IPv4] any1 check any2"},
		{"a taken port for health", "type: LoadBalancer, externalTrafficPolicy: Local, healthCheckNodePort: 30005, ports: [{port: 80}]", "Internal error occurred: failed to allocate requested HealthCheck NodePort 30005: provided port is already allocated"},
		{"no ports", "type: LoadBalancer, allocateLoadBalancerNodePorts: false, ports: [{port: 80}]", "v4 SingleStack [IPv4]"},
		{"no ports but a chosen one", "type: LoadBalancer, allocateLoadBalancerNodePorts: false, ports: [{port: 80, nodePort: 30011}, {port: 80, protocol: UDP}]", "v4 SingleStack [IPv4] 30011 -"},
		{"both families", "ipFamilyPolicy: RequireDualStack", `spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services`},
		{"both if they are there", "ipFamilyPolicy: PreferDualStack", "v4 PreferDualStack [IPv4]"},
		{"another family", "ipFamilies: [IPv6]", `spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster`},
		{"an address of another family", "clusterIP: 'fd00::5'", `spec.clusterIPs[0]: Invalid value: ["fd00::5"]: IPv6 is not configured on this cluster`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := serve(t, memory.New(), "10.0.0.0/16")
			ctx := t.Context()
			if _, err := s.create(ctx, "taken", taken, false); err != nil {
				t.Fatal(err)
			}
			if _, err := s.create(ctx, "taken-port", "type: NodePort, ports: [{port: 1, nodePort: 30005}]", false); err != nil {
				t.Fatal(err)
			}
			records, ports := s.records(t), s.ports(t)
			for _, dryRun := range []bool{true, false} {
				svc, err := s.create(ctx, "x", test.spec, dryRun)
				got := ""
				if err == nil {
					got = told(svc)
				} else if _, got, _ = strings.Cut(err.Error(), `"x" is invalid: `); got == "" {
					got = err.Error()
				}
				if got != test.want {
					t.Errorf("dry run %v:\ngot  %s\nwant %s", dryRun, got, test.want)
				}
				if now := s.records(t); (dryRun || err != nil) && !slices.Equal(records, now) {
					t.Errorf("dry run %v has left %v", dryRun, now)
				}
				if now := s.ports(t); (dryRun || err != nil) && !slices.Equal(ports, now) {
					t.Errorf("dry run %v has left %v", dryRun, now)
				}
			}
			if s.services.Objects.Get("default/x") != nil || !strings.Contains(test.want, "[") {
				s.check(t)
			}
		})
	}
}

// check holds records and map of ports to be those of the services.
func (s *server) check(t *testing.T) {
	t.Helper()
	page, err := s.Store.List(t.Context(), registry.Query{Prefix: "/registry/services/specs/"})
	if err != nil {
		t.Fatal(err)
	}
	var records []string
	var ports []int
	for _, r := range page.Records {
		svc := decode[*corev1.Service](t, s.services, r)
		for _, ip := range svc.Spec.ClusterIPs {
			if ip != corev1.ClusterIPNone {
				records = append(records, ip+"="+svc.Name)
			}
		}
		own := map[int]bool{int(svc.Spec.HealthCheckNodePort): true}
		for _, p := range svc.Spec.Ports {
			own[int(p.NodePort)] = true
		}
		delete(own, 0)
		for p := range own {
			ports = append(ports, p)
		}
	}
	slices.Sort(records)
	slices.Sort(ports)
	have := s.records(t)
	slices.Sort(have)
	if !slices.Equal(have, records) {
		t.Errorf("on record are %v, in use are %v", have, records)
	}
	if taken := s.ports(t); !slices.Equal(taken, ports) {
		t.Errorf("taken are %v, in use are %v", taken, ports)
	}
}

// TestRecord holds what is stored with a service to be what the stock server
// stores, in the same revision as the service.
func TestRecord(t *testing.T) {
	s := serve(t, memory.New(), "10.0.0.0/16")
	svc, err := s.create(t.Context(), "x", "clusterIP: 10.0.0.9, type: NodePort, ports: [{port: 80, nodePort: 30000}, {port: 81, nodePort: 30009}]", false)
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Store.Get(t.Context(), "/registry/ipaddresses/10.0.0.9")
	if err != nil {
		t.Fatal(err)
	}
	is := decode[*networkingv1.IPAddress](t, s.Kind(networkingv1.Resource("ipaddresses")), r)
	if is.ResourceVersion != svc.ResourceVersion || is.UID == "" || is.CreationTimestamp.IsZero() ||
		is.Labels["ipaddress.kubernetes.io/managed-by"] != "ipallocator.k8s.io" || is.Labels["ipaddress.kubernetes.io/ip-family"] != "IPv4" ||
		*is.Spec.ParentRef != (networkingv1.ParentReference{Resource: "services", Namespace: "default", Name: "x"}) {
		t.Errorf("record at %s of service at %s: %v", is.ResourceVersion, svc.ResourceVersion, is)
	}
	m, err := s.Store.Get(t.Context(), "/registry/ranges/servicenodeports")
	if err != nil || fmt.Sprint(m.Rev) != svc.ResourceVersion {
		t.Errorf("map at %d: %v", m.Rev, err)
	}
	// The map is a big-endian number with a bit for each port.
	if !strings.Contains(string(m.Value), "\x0b30000-32767\x1a\x02\x02\x01") {
		t.Errorf("map is %q", m.Value)
	}
}

func TestUpdate(t *testing.T) {
	s := serve(t, memory.New(), "10.0.0.0/16", "fd00:10::/112")
	ctx := t.Context()
	if _, err := s.create(ctx, "x", "ports: [{name: a, port: 80}]", false); err != nil {
		t.Fatal(err)
	}
	steps := []struct {
		name, want string
		change     func(*corev1.ServiceSpec)
	}{
		{"nothing", "v4 SingleStack [IPv4]", func(*corev1.ServiceSpec) {}},
		{"what was given is left out", "v4 SingleStack [IPv4]", func(s *corev1.ServiceSpec) { s.ClusterIP, s.ClusterIPs = "", nil }},
		{"to node ports", "v4 SingleStack [IPv4] any1", func(s *corev1.ServiceSpec) { s.Type = corev1.ServiceTypeNodePort }},
		{"a node port is left out", "v4 SingleStack [IPv4] any1", func(s *corev1.ServiceSpec) { s.Ports[0].NodePort = 0 }},
		{"one port more", "v4 SingleStack [IPv4] any1 any2", func(s *corev1.ServiceSpec) {
			s.Ports = append(s.Ports, corev1.ServicePort{Name: "b", Port: 81, Protocol: corev1.ProtocolTCP})
		}},
		{"one port less", "v4 SingleStack [IPv4] any1", func(s *corev1.ServiceSpec) { s.Ports = s.Ports[1:] }},
		{"another port", "v4 SingleStack [IPv4] 30020", func(s *corev1.ServiceSpec) { s.Ports[0].NodePort = 30020 }},
		{"to a balancer", "v4 SingleStack [IPv4] 30020 check any1", func(s *corev1.ServiceSpec) {
			s.Type, s.ExternalTrafficPolicy = corev1.ServiceTypeLoadBalancer, corev1.ServiceExternalTrafficPolicyLocal
		}},
		{"the health port is left out", "v4 SingleStack [IPv4] 30020 check any1", func(s *corev1.ServiceSpec) { s.HealthCheckNodePort = 0 }},
		{"to two families", "v4 v6 RequireDualStack [IPv4 IPv6] 30020 check any1", func(s *corev1.ServiceSpec) {
			s.IPFamilyPolicy = new(corev1.IPFamilyPolicyRequireDualStack)
		}},
		{"the second address is left out", `Service "x" is invalid: spec.ipFamilyPolicy: Invalid value: "RequireDualStack": must be 'SingleStack' to release the secondary cluster IP`, func(s *corev1.ServiceSpec) {
			s.ClusterIPs = s.ClusterIPs[:1]
		}},
		{"to one family", "v4 SingleStack [IPv4] 30020 check any1", func(s *corev1.ServiceSpec) {
			s.IPFamilyPolicy = new(corev1.IPFamilyPolicySingleStack)
		}},
		{"two addresses of one family", `Service "x" is invalid: spec.ipFamilyPolicy: Invalid value: "SingleStack": must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified`, func(s *corev1.ServiceSpec) {
			s.IPFamilies = append(s.IPFamilies, corev1.IPv6Protocol)
		}},
		{"to a chosen second address", "v4 v6 PreferDualStack [IPv4 IPv6] 30020 check any1", func(s *corev1.ServiceSpec) {
			s.IPFamilyPolicy = new(corev1.IPFamilyPolicyPreferDualStack)
			s.ClusterIPs = append(s.ClusterIPs, "fd00:10::7")
		}},
		{"to no address", "", func(s *corev1.ServiceSpec) {
			// What a client may leave as it was the kind's hooks take away.
			*s = corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "foo.com", Ports: []corev1.ServicePort{{Name: "b", Port: 81}}}
		}},
		{"to a chosen address", "10.0.0.77 SingleStack [IPv4]", func(s *corev1.ServiceSpec) {
			s.Type, s.ClusterIP = corev1.ServiceTypeClusterIP, "10.0.0.77"
		}},
	}
	for _, step := range steps {
		t.Run(step.name, func(t *testing.T) {
			svc, err := s.update(ctx, "x", step.change)
			got := ""
			if err != nil {
				got = err.Error()
			} else {
				got = told(svc)
			}
			if got != step.want {
				t.Errorf("\ngot  %s\nwant %s", got, step.want)
			}
			s.check(t) //nolint:contextcheck // it takes the test's
		})
	}
	key := "/registry/services/endpoints/default/x"
	endpoints := s.Kind(corev1.Resource("endpoints"))
	obj := endpoints.Definition.New()
	obj.SetName("x")
	if _, err := endpoints.Main().Create(ctx, &rest.Call{Namespace: "default"}, obj); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Store.Get(ctx, key); err != nil {
		t.Fatal(err)
	}
	s.remove(t, "x")
	s.check(t)
	if r, err := s.Store.Get(ctx, key); err == nil {
		t.Errorf("endpoints have outlived the service: %v", r)
	}
}

func TestTwoFamilies(t *testing.T) {
	tests := []struct{ name, spec, want string }{
		{"one", "", "v6 SingleStack [IPv6]"},
		{"the other", "ipFamilies: [IPv4]", "v4 SingleStack [IPv4]"},
		{"both", "ipFamilyPolicy: PreferDualStack", "v6 v4 PreferDualStack [IPv6 IPv4]"},
		{"both, and the first", "ipFamilyPolicy: RequireDualStack, ipFamilies: [IPv4]", "v4 v6 RequireDualStack [IPv4 IPv6]"},
		{"by an address", "clusterIP: 10.0.0.3", "10.0.0.3 SingleStack [IPv4]"},
		{"by two", "ipFamilyPolicy: PreferDualStack, clusterIP: 10.0.0.3, clusterIPs: [10.0.0.3, 'fd00:10::3']", "10.0.0.3 v6 PreferDualStack [IPv4 IPv6]"},
		{"two without a policy", "clusterIP: 10.0.0.3, clusterIPs: [10.0.0.3, 'fd00:10::3']", `Service "x" is invalid: spec.ipFamilyPolicy: Invalid value: "SingleStack": must be 'RequireDualStack' or 'PreferDualStack' when multiple cluster IPs are specified`},
		{"headless", "clusterIP: None, selector: {a: b}, ipFamilyPolicy: PreferDualStack", "None PreferDualStack [IPv6 IPv4]"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := serve(t, memory.New(), "fd00:10::/112", "10.0.0.0/16")
			var got string
			if svc, err := s.create(t.Context(), "x", test.spec, false); err == nil {
				got = told(svc)
			} else {
				got = err.Error()
			}
			if got != test.want {
				t.Errorf("\ngot  %s\nwant %s", got, test.want)
			}
			s.check(t)
		})
	}
}

// TestRace lets two servers give from one small range: every address is
// given, none twice.
func TestRace(t *testing.T) {
	store := memory.New()
	servers := []*server{serve(t, store, "10.0.0.0/27"), serve(t, store, "10.0.0.0/27")}
	var mu sync.Mutex
	var work sync.WaitGroup
	made, full := 0, 0
	for i := range 60 {
		work.Go(func() {
			_, err := servers[i%2].create(t.Context(), fmt.Sprint("x", i), "type: NodePort, ports: [{port: 80}]", false)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				made++
			case strings.Contains(err.Error(), "range is full"):
				full++
			default:
				t.Error(err)
			}
		})
	}
	work.Wait()
	if made != 30 || full != 30 {
		t.Errorf("%d made, %d refused", made, full)
	}
	servers[0].check(t)
	for i := range 60 {
		work.Go(func() {
			call := &rest.Call{Namespace: "default", Name: fmt.Sprint("x", i)}
			if _, err := servers[(i+1)%2].services.Delete(t.Context(), call, &metav1.DeleteOptions{}); err != nil && !strings.Contains(err.Error(), "not found") {
				t.Error(err)
			}
		})
	}
	work.Wait()
	servers[0].check(t)
	if left := servers[0].records(t); len(left) > 0 {
		t.Errorf("left are %v", left)
	}
	// What one server has freed the other may give at once.
	for i := range 20 {
		name := fmt.Sprint("y", i)
		if _, err := servers[i%2].create(t.Context(), name, "clusterIP: 10.0.0.3, type: NodePort, ports: [{port: 80, nodePort: 30003}]", false); err != nil {
			t.Fatal(err)
		}
		servers[i%2].remove(t, name)
	}
}

func TestStart(t *testing.T) {
	store := memory.New()
	s := serve(t, store, "10.0.0.0/16")
	if first := s.alloc.First(); first != netip.MustParseAddr("10.0.0.1") {
		t.Errorf("first is %s", first)
	}
	own := func(s *server) *networkingv1.ServiceCIDR {
		t.Helper()
		r, err := store.Get(t.Context(), "/registry/servicecidrs/kubernetes")
		if err != nil {
			t.Fatal(err)
		}
		return decode[*networkingv1.ServiceCIDR](t, s.Kind(networkingv1.Resource("servicecidrs")), r)
	}
	is := own(s)
	ready := meta.FindStatusCondition(is.Status.Conditions, "Ready")
	if !slices.Equal(is.Spec.CIDRs, []string{"10.0.0.0/16"}) || ready == nil || ready.Status != metav1.ConditionTrue || ready.Message != "Kubernetes default Service CIDR is ready" {
		t.Errorf("own range is %v", is)
	}
	if ports := s.ports(t); len(ports) > 0 {
		t.Errorf("ports %v", ports)
	}
	if same := own(serve(t, store, "10.0.0.0/16")); same.ResourceVersion != is.ResourceVersion {
		t.Errorf("a restart has written %v", same)
	}
	if more := own(serve(t, store, "10.0.0.0/16", "fd00:10::/112")); !slices.Equal(more.Spec.CIDRs, []string{"10.0.0.0/16", "fd00:10::/112"}) {
		t.Errorf("with a second family it is %v", more)
	}
	if same := own(serve(t, store, "10.99.0.0/16")); !slices.Equal(same.Spec.CIDRs, []string{"10.0.0.0/16", "fd00:10::/112"}) {
		t.Errorf("another range has made it %v", same)
	}
}

// TestAnotherRange gives from a ServiceCIDR that a client has made, and no
// more once it is to go.
func TestAnotherRange(t *testing.T) {
	s := serve(t, memory.New(), "10.0.0.0/29")
	ctx := t.Context()
	cidrs := s.Kind(networkingv1.Resource("servicecidrs"))
	more := &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "more", Finalizers: []string{"example.com/hold"}}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.7.0.0/24"}}}
	if _, err := s.create(ctx, "early", "clusterIP: 10.7.0.4", false); err == nil {
		t.Error("an address was given that is in no range")
	}
	w, err := cidrs.Main().Create(ctx, &rest.Call{}, more)
	if err != nil {
		t.Fatal(err)
	}
	seen(t, s, w)
	if _, err := s.create(ctx, "x", "clusterIP: 10.7.0.4", false); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		if _, err := s.create(ctx, fmt.Sprint("x", i), "", false); err != nil {
			t.Fatal(err)
		}
	}
	w, err = cidrs.Delete(ctx, &rest.Call{Name: "more"}, &metav1.DeleteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	seen(t, s, w)
	if _, err := s.create(ctx, "late", "clusterIP: 10.7.0.5", false); err == nil {
		t.Error("an address was given of a range that is to go")
	}
	if _, err := s.create(ctx, "late", "", false); err == nil || !strings.Contains(err.Error(), `failed to allocate a serviceIP for Service "late": range is full`) {
		t.Error(err)
	}
	s.check(t)
}

// seen waits until the server's cache shows what was written.
func seen(t *testing.T, s *server, w rest.Written) {
	t.Helper()
	var rev int64
	if _, err := fmt.Sscan(w.Object.GetResourceVersion(), &rev); err != nil {
		t.Fatal(err)
	}
	if err := s.Cache.Wait(t.Context(), rev); err != nil {
		t.Fatal(err)
	}
}

// BenchmarkCreate makes services where there are few, and where there are
// many: it should make no difference.
func BenchmarkCreate(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := serve(b, memory.New(), "10.0.0.0/16")
			for i := range n {
				if _, err := s.create(b.Context(), fmt.Sprint("first", i), "ports: [{port: 80}]", false); err != nil {
					b.Fatal(err)
				}
			}
			i := 0
			for b.Loop() {
				if _, err := s.create(b.Context(), fmt.Sprint("x", i), "ports: [{port: 80}]", false); err != nil {
					b.Fatal(err)
				}
				i++
			}
		})
	}
}
