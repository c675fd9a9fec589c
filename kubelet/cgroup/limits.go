package cgroup

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/component-helpers/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-dev/knarr/kubelet"
)

const (
	minShares  = 2
	maxShares  = 262144
	fullShares = 1024   // for a whole processor
	period     = 100000 // microseconds that a quota is for
	minQuota   = 1000
)

// limits are those of a group; zero is none.
type limits struct {
	shares, quota, memory, pids int64
}

// setting is what to write to one file.
type setting struct{ name, value string }

func (l limits) version1(controllers []string) (files []setting) {
	for _, c := range controllers {
		switch {
		case c == "cpu":
			files = append(files, setting{"cpu.shares", num(l.shares)})
			if l.quota > 0 {
				files = append(files, setting{"cpu.cfs_period_us", num(period)})
			}
			files = append(files, setting{"cpu.cfs_quota_us", orNone(l.quota, "-1")})
		case c == "memory":
			files = append(files, setting{"memory.limit_in_bytes", orNone(l.memory, "-1")})
		case c == "pids" && l.pids > 0:
			files = append(files, setting{"pids.max", num(l.pids)})
		}
	}
	return files
}

func (l limits) version2() []setting {
	files := []setting{
		// The range of shares onto that of weights, as runtimes do it.
		{"cpu.weight", num(1 + (l.shares-minShares)*9999/(maxShares-minShares))},
		{"cpu.max", orNone(l.quota, "max") + " " + num(period)},
		{"memory.max", orNone(l.memory, "max")},
	}
	if l.pids > 0 {
		files = append(files, setting{"pids.max", num(l.pids)})
	}
	return files
}

func num(n int64) string { return strconv.FormatInt(n, 10) }

func orNone(n int64, none string) string {
	if n == 0 {
		return none
	}
	return num(n)
}

// shares are the shares of the processor for a request.
func shares(milli int64) int64 {
	return min(max(milli*fullShares/1000, minShares), maxShares)
}

// quota is how much of a period a limit leaves; zero is all of it.
func quota(milli int64) int64 {
	if milli == 0 {
		return 0
	}
	return max(milli*period/1000, minQuota)
}

// request is the processor time that a pod asks for.
func request(p *corev1.Pod) int64 {
	r := resource.PodRequests(p, resource.PodResourcesOptions{})
	return r.Cpu().MilliValue()
}

// podLimits are those of a pod's group. It has a limit where the pod has one
// or each of its containers does.
func podLimits(p *corev1.Pod, pids int64) limits {
	l := limits{shares: minShares, pids: pids}
	class := qos(p)
	if class == corev1.PodQOSBestEffort {
		return l
	}
	l.shares = shares(request(p))
	cpu, memory := true, true
	sum := resource.PodLimits(p, resource.PodResourcesOptions{ContainerFn: func(r corev1.ResourceList, _ resource.ContainerType) {
		cpu, memory = cpu && !r.Cpu().IsZero(), memory && !r.Memory().IsZero()
	}})
	if own := p.Spec.Resources; own != nil {
		cpu, memory = cpu || !own.Limits.Cpu().IsZero(), memory || !own.Limits.Memory().IsZero()
	}
	if cpu {
		l.quota = quota(sum.Cpu().MilliValue())
	}
	if memory {
		l.memory = sum.Memory().Value()
	}
	return l
}

// sandboxResources tells the runtime what the whole pod has.
func sandboxResources(p *corev1.Pod) *runtimeapi.LinuxContainerResources {
	o := resource.PodResourcesOptions{ExcludeOverhead: true}
	requests, most := resource.PodRequests(p, o), resource.PodLimits(p, o)
	return linux(requests, most)
}

// linux are resources as the runtime takes them. Without a request for the
// processor its limit is one.
func linux(requests, most corev1.ResourceList) *runtimeapi.LinuxContainerResources {
	milli := most.Cpu().MilliValue()
	if asked, ok := requests[corev1.ResourceCPU]; ok {
		milli = asked.MilliValue()
	}
	return &runtimeapi.LinuxContainerResources{
		CpuShares: shares(milli), CpuPeriod: period, CpuQuota: quota(most.Cpu().MilliValue()),
		MemoryLimitInBytes: most.Memory().Value(),
	}
}

// container sets what one container may use.
func (t *Tree) container(_ context.Context, c *kubelet.Container) error {
	r := Resources(c.Pod, c.Spec)
	if t.Memory != nil {
		r.OomScoreAdj = badness(c.Pod, c.Spec, t.Memory())
	}
	c.Config.Linux.Resources = r
	return nil
}

// Resources are a container's resources as the runtime takes them. Where it
// has no limit the pod's own is it.
func Resources(p *corev1.Pod, c *corev1.Container) *runtimeapi.LinuxContainerResources {
	most := c.Resources.Limits.DeepCopy()
	if most == nil {
		most = corev1.ResourceList{}
	}
	if own := p.Spec.Resources; own != nil {
		for name, q := range own.Limits {
			if has := most[name]; has.IsZero() {
				most[name] = q
			}
		}
	}
	r := linux(c.Resources.Requests, most)
	if swaps() {
		r.MemorySwapLimitInBytes = r.MemoryLimitInBytes // pods do not swap
	}
	r.HugepageLimits = hugepages(most)
	return r
}

// swaps tells whether the host has swap space.
func swaps() bool {
	b, err := os.ReadFile("/proc/swaps")
	return err == nil && strings.Count(string(b), "\n") > 1
}

// hugepages limits each size of huge pages that the host has, to none where
// the container does not ask for any.
func hugepages(most corev1.ResourceList) (list []*runtimeapi.HugepageLimit) {
	entries, err := os.ReadDir("/sys/kernel/mm/hugepages")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimPrefix(e.Name(), "hugepages-"), "kB"), 10, 64)
		if err != nil {
			continue
		}
		size := fmt.Sprintf("%dKB", kb)
		switch {
		case kb%(1<<20) == 0:
			size = fmt.Sprintf("%dGB", kb>>20)
		case kb%(1<<10) == 0:
			size = fmt.Sprintf("%dMB", kb>>10)
		}
		name := corev1.ResourceHugePagesPrefix + apiresource.NewQuantity(kb<<10, apiresource.BinarySI).String()
		q := most[corev1.ResourceName(name)]
		list = append(list, &runtimeapi.HugepageLimit{PageSize: size, Limit: uint64(q.Value())})
	}
	return list
}

// How likely a process is to be killed when memory is short: least for what
// has all that it may use reserved, most for what has nothing.
const (
	mustLive = -997
	mayDie   = 1000
)

// nodeCritical is the priority from which on a node cannot do without a pod.
const nodeCritical = 2000001000

// badness is how likely a container is to be killed when memory is short: the
// less, the more memory it has asked for.
func badness(p *corev1.Pod, c *corev1.Container, capacity int64) int64 {
	class := qos(p)
	switch {
	case p.Spec.Priority != nil && *p.Spec.Priority >= nodeCritical, class == corev1.PodQOSGuaranteed:
		return mustLive
	case class == corev1.PodQOSBestEffort, capacity == 0:
		return mayDie
	}
	asked := c.Resources.Requests.Memory().Value()
	if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways && len(p.Spec.Containers) > 0 {
		// A sidecar is worth no less than the least of those that it serves.
		least := p.Spec.Containers[0].Resources.Requests.Memory().Value()
		for _, other := range p.Spec.Containers {
			least = min(least, other.Resources.Requests.Memory().Value())
		}
		asked = max(asked, least)
	}
	if own := p.Spec.Resources; own != nil && !own.Requests.Memory().IsZero() {
		// What the pod has asked for beyond its containers is divided among them.
		sum := resource.AggregateContainerRequests(p, resource.PodResourcesOptions{})
		asked += max(own.Requests.Memory().Value()-sum.Memory().Value(), 0) / int64(len(p.Spec.Containers)+len(p.Spec.InitContainers))
	}
	return min(max(mayDie-1000*asked/capacity, mayDie+mustLive), mayDie-1)
}

// qos is a pod's class of service. The API server has worked it out for all
// pods but those that did not come from it.
func qos(p *corev1.Pod) corev1.PodQOSClass {
	if p.Status.QOSClass != "" {
		return p.Status.QOSClass
	}
	guaranteed, any := true, false
	for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for _, c := range list {
			for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
				most, hasMost := c.Resources.Limits[name]
				asked, has := c.Resources.Requests[name]
				any = any || !most.IsZero() || !asked.IsZero()
				guaranteed = guaranteed && hasMost && !most.IsZero() && (!has || asked.Cmp(most) == 0)
			}
		}
	}
	switch {
	case !any:
		return corev1.PodQOSBestEffort
	case guaranteed:
		return corev1.PodQOSGuaranteed
	}
	return corev1.PodQOSBurstable
}
