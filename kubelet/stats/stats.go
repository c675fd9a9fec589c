// Package stats tells how much the node, its pods and its containers use, as
// /stats/summary, the metrics endpoints and /spec show it.
//
// It reads the kernel's files, and asks the runtime for what only that knows.
// It reads and asks when it is asked itself: nothing is sampled in between, and
// who comes within a moment of another gets the same answer.
package stats

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	statsv1alpha1 "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// A Runtime knows what there is, and measures what the kernel's files do not tell.
type Runtime interface {
	ListPodSandbox(context.Context, *runtimeapi.ListPodSandboxRequest, ...grpc.CallOption) (*runtimeapi.ListPodSandboxResponse, error)
	ListContainers(context.Context, *runtimeapi.ListContainersRequest, ...grpc.CallOption) (*runtimeapi.ListContainersResponse, error)
	ListPodSandboxStats(context.Context, *runtimeapi.ListPodSandboxStatsRequest, ...grpc.CallOption) (*runtimeapi.ListPodSandboxStatsResponse, error)
	ListContainerStats(context.Context, *runtimeapi.ListContainerStatsRequest, ...grpc.CallOption) (*runtimeapi.ListContainerStatsResponse, error)
}

// Images knows where images are kept.
type Images interface {
	ImageFsInfo(context.Context, *runtimeapi.ImageFsInfoRequest, ...grpc.CallOption) (*runtimeapi.ImageFsInfoResponse, error)
}

// A Config is where to look. Files and Statfs are the machine's own where nil.
type Config struct {
	Node    string
	Machine *Machine
	Runtime Runtime
	Images  Images
	Pods    func() []*corev1.Pod // for the names of their volumes

	PodsCgroup string            // that of all pods, such as /kubepods
	System     map[string]string // more cgroups to tell of, by name: kubelet, runtime, misc
	Root       string            // the kubelet's directory
	LogDir     string            // of pods

	Files  fs.FS
	Statfs func(path string) (FS, error)
}

// A Provider answers. It is made by New.
type Provider struct {
	Config

	cgroups hierarchies
	started time.Time

	mu      sync.Mutex
	sampled time.Time // when rates were last brought up to date
	rates   map[string]rate
	recent  map[bool]recent
	volumes map[string]measured // by uid
}

type recent struct {
	at      time.Time
	summary *statsv1alpha1.Summary
}

// New returns a provider. It reads the mounts once.
func New(c Config) *Provider {
	if c.Files == nil {
		c.Files = os.DirFS("/")
	}
	if c.Statfs == nil {
		c.Statfs = Statfs
	}
	return &Provider{
		Config: c, cgroups: find(c.Files), started: time.Now(),
		rates: map[string]rate{}, recent: map[bool]recent{}, volumes: map[string]measured{},
	}
}

const (
	// shared is how long an answer serves others too.
	shared = time.Second
	// A rate needs two samples. Where the older one is stale, or there is
	// none, the two are taken a moment apart.
	stale  = time.Minute
	moment = 100 * time.Millisecond
)

// Summary is the answer to /stats/summary, cut down to processor and memory if
// only that is asked for. It belongs to all who asked: do not change it.
// contract: HT-5
func (p *Provider) Summary(ctx context.Context, onlyCPUAndMemory bool) (*statsv1alpha1.Summary, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r := p.recent[onlyCPUAndMemory]; r.summary != nil && time.Since(r.at) < shared {
		return r.summary, nil
	}
	if time.Since(p.sampled) > stale {
		s, err := p.look(ctx, need{})
		if err != nil {
			return nil, err
		}
		p.update(s)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(moment):
		}
	}
	s, err := p.look(ctx, need{runtime: !onlyCPUAndMemory, network: !onlyCPUAndMemory})
	if err != nil {
		return nil, err
	}
	p.update(s)
	sum, err := p.summarize(ctx, s, onlyCPUAndMemory)
	if err != nil {
		return nil, err
	}
	p.recent[onlyCPUAndMemory] = recent{time.Now(), sum}
	return sum, nil
}

// A rate is how fast a count of processor time grows.
type rate struct {
	at    time.Time
	usage uint64
	value *uint64 // nanoseconds a second
}

// update brings the rates up to date and forgets those of what is gone.
func (p *Provider) update(s *snapshot) {
	next := make(map[string]rate, len(s.groups))
	for name, g := range s.groups {
		was, now := p.rates[name], rate{at: g.at, usage: g.cpu.usage}
		if d := g.at.Sub(was.at); d >= moment/2 && g.cpu.usage >= was.usage && !was.at.IsZero() {
			now.value = new(uint64(float64(g.cpu.usage-was.usage) / d.Seconds()))
		} else if d < moment/2 {
			now = was
		}
		next[name] = now
	}
	p.rates, p.sampled = next, time.Now()
}

// A snapshot is what was found at one moment.
type snapshot struct {
	groups map[string]sample // by cgroup, or by id where the runtime had to be asked
	levels []string          // cgroups of no single pod
	pods   []podView
	node   []iface
}

type podView struct {
	sandbox    *runtimeapi.PodSandbox
	cgroup     string // key in groups, empty where nothing is known
	pause      string // that of the sandbox's own container
	network    []iface
	containers []containerView
	stats      *runtimeapi.PodSandboxStats // nil where not asked for or not to be had
}

type containerView struct {
	container *runtimeapi.Container
	cgroup    string
	stats     *runtimeapi.ContainerStats
}

// need is what a snapshot is for, so that no more is read.
type need struct{ runtime, network, detail bool }

// look takes a snapshot.
func (p *Provider) look(ctx context.Context, n need) (*snapshot, error) {
	pods, err := p.list(ctx)
	if err != nil {
		return nil, err
	}
	t := p.cgroups.walk(p.PodsCgroup)
	s := &snapshot{groups: map[string]sample{}, pods: pods}
	read := func(cgroup string) string {
		if g, ok := p.cgroups.read(cgroup, n.detail); ok && cgroup != "" {
			s.groups[cgroup] = g
			return cgroup
		}
		return ""
	}
	for _, level := range slices.Concat([]string{"/"}, t.levels, slices.Sorted(maps.Values(p.System))) {
		if read(level) != "" {
			s.levels = append(s.levels, level)
		}
	}
	strangers := false // containers whose cgroup is elsewhere, or in a machine of their own
	for i := range pods {
		v := &pods[i]
		v.cgroup = read(t.pods[v.sandbox.GetMetadata().GetUid()])
		v.pause = t.containers[v.sandbox.GetId()]
		if n.detail {
			v.pause = read(v.pause)
		}
		if n.network {
			v.network = p.podNetwork(v.pause)
		}
		for j := range v.containers {
			c := &v.containers[j]
			c.cgroup = read(t.containers[c.container.GetId()])
			if g, ok := s.groups[c.cgroup]; ok {
				g.born = time.Unix(0, c.container.CreatedAt)
				s.groups[c.cgroup] = g
			}
			strangers = strangers || c.cgroup == ""
		}
	}
	if n.network {
		s.node = interfaces(p.Files, "proc/self/net/dev")
	}
	if n.runtime || strangers {
		if err := p.ask(ctx, s); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// list has the pods that are up with their running containers, in the order
// of their names. Of several sandboxes of a pod the newest counts.
func (p *Provider) list(ctx context.Context) ([]podView, error) {
	sandboxes, err := p.Runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{
		State: &runtimeapi.PodSandboxStateValue{State: runtimeapi.PodSandboxState_SANDBOX_READY},
	}})
	if err != nil {
		return nil, fmt.Errorf("list pod sandboxes: %w", err)
	}
	containers, err := p.Runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{
		State: &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING},
	}})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	byUID := map[string]podView{}
	for _, s := range sandboxes.Items {
		if was, ok := byUID[s.GetMetadata().GetUid()]; !ok || was.sandbox.CreatedAt < s.CreatedAt {
			byUID[s.GetMetadata().GetUid()] = podView{sandbox: s}
		}
	}
	pods := slices.SortedFunc(maps.Values(byUID), func(a, b podView) int {
		return strings.Compare(fullName(a.sandbox), fullName(b.sandbox))
	})
	for i := range pods {
		for _, c := range containers.Containers {
			if c.PodSandboxId == pods[i].sandbox.Id {
				pods[i].containers = append(pods[i].containers, containerView{container: c})
			}
		}
		slices.SortFunc(pods[i].containers, func(a, b containerView) int {
			return strings.Compare(a.container.GetMetadata().GetName(), b.container.GetMetadata().GetName())
		})
	}
	return pods, nil
}

func fullName(s *runtimeapi.PodSandbox) string {
	m := s.GetMetadata()
	return m.GetNamespace() + "_" + m.GetName() + "_" + m.GetUid()
}

// podNetwork reads the interfaces of a network namespace through a process in
// it. A pod on the host's network has none of its own.
func (p *Provider) podNetwork(pause string) []iface {
	if pause == "" {
		return nil
	}
	ours, _ := fs.ReadLink(p.Files, "proc/self/ns/net")
	for _, pid := range p.cgroups.procs(pause) {
		if theirs, err := fs.ReadLink(p.Files, "proc/"+pid+"/ns/net"); err == nil && theirs != ours {
			return interfaces(p.Files, "proc/"+pid+"/net/dev")
		}
	}
	return nil
}

// ask has the runtime measure. Some do so for containers only, and containerd
// does if any one sandbox has a cgroup that it cannot find.
func (p *Provider) ask(ctx context.Context, s *snapshot) error {
	byID := map[string]*runtimeapi.ContainerStats{}
	pods, err := p.Runtime.ListPodSandboxStats(ctx, &runtimeapi.ListPodSandboxStatsRequest{})
	podsByID := map[string]*runtimeapi.PodSandboxStats{}
	for _, ps := range pods.GetStats() {
		podsByID[ps.GetAttributes().GetId()] = ps
		for _, cs := range ps.GetLinux().GetContainers() {
			byID[cs.GetAttributes().GetId()] = cs
		}
	}
	if err != nil {
		list, err2 := p.Runtime.ListContainerStats(ctx, &runtimeapi.ListContainerStatsRequest{})
		if err2 != nil {
			return fmt.Errorf("list stats: %w", errors.Join(err, err2))
		}
		for _, cs := range list.Stats {
			byID[cs.GetAttributes().GetId()] = cs
		}
	}
	for i := range s.pods {
		v := &s.pods[i]
		v.stats = podsByID[v.sandbox.Id]
		if l := v.stats.GetLinux(); v.cgroup == "" && l != nil {
			v.cgroup = v.sandbox.Id
			s.groups[v.cgroup] = fromRuntime(l.Cpu, l.Memory, nil)
		}
		if len(v.network) == 0 {
			v.network = networkOf(v.stats)
		}
		for j := range v.containers {
			c := &v.containers[j]
			c.stats = byID[c.container.Id]
			if c.cgroup == "" && c.stats != nil {
				c.cgroup = c.container.Id
				s.groups[c.cgroup] = fromRuntime(c.stats.Cpu, c.stats.Memory, c.stats.Swap)
			}
		}
	}
	return nil
}

func networkOf(ps *runtimeapi.PodSandboxStats) (list []iface) {
	for _, n := range ps.GetLinux().GetNetwork().GetInterfaces() {
		list = append(list, iface{
			name: n.Name,
			rx:   traffic{bytes: n.RxBytes.GetValue(), errors: n.RxErrors.GetValue()},
			tx:   traffic{bytes: n.TxBytes.GetValue(), errors: n.TxErrors.GetValue()},
		})
	}
	return list
}

// fromRuntime is a sample as the runtime took it.
func fromRuntime(cpu *runtimeapi.CpuUsage, mem *runtimeapi.MemoryUsage, swap *runtimeapi.SwapUsage) sample {
	s := sample{
		at:  time.Unix(0, max(cpu.GetTimestamp(), mem.GetTimestamp())),
		cpu: processor{usage: cpu.GetUsageCoreNanoSeconds().GetValue(), quota: unlimited, pressure: pressureOf(cpu.GetPsi())},
		mem: memory{
			usage: mem.GetUsageBytes().GetValue(), workingSet: mem.GetWorkingSetBytes().GetValue(), rss: mem.GetRssBytes().GetValue(),
			faults: mem.GetPageFaults().GetValue(), majorFaults: mem.GetMajorPageFaults().GetValue(), swap: swap.GetSwapUsageBytes().GetValue(),
			limit: unlimited, swapLimit: unlimited, reservation: unlimited, pressure: pressureOf(mem.GetPsi()),
		},
	}
	if free := mem.GetAvailableBytes().GetValue(); free > 0 {
		s.mem.limit = s.mem.workingSet + free
	}
	return s
}

func pressureOf(p *runtimeapi.PsiStats) pressure {
	of := func(d *runtimeapi.PsiData) stall {
		return stall{d.GetTotal(), d.GetAvg10(), d.GetAvg60(), d.GetAvg300()}
	}
	return pressure{of(p.GetSome()), of(p.GetFull()), p != nil}
}

// Running has the pods that are up in the runtime, with no more of them than
// the runtime knows.
func (p *Provider) Running(ctx context.Context) ([]*corev1.Pod, error) {
	list, err := p.list(ctx)
	if err != nil {
		return nil, err
	}
	var pods []*corev1.Pod
	for _, v := range list {
		m := v.sandbox.GetMetadata()
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: m.GetNamespace(), Name: m.GetName(), UID: types.UID(m.GetUid())}}
		for _, c := range v.containers {
			pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: c.container.GetMetadata().GetName(), Image: c.container.GetImage().GetImage()})
		}
		pods = append(pods, pod)
	}
	return pods, nil
}
