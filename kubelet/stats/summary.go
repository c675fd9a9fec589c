package stats

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	statsv1alpha1 "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// A summing turns one snapshot into a summary.
type summing struct {
	*Provider
	*snapshot

	only bool
	disk map[string]FS // by path, so that each is measured once
}

func (p *Provider) summarize(ctx context.Context, s *snapshot, only bool) (*statsv1alpha1.Summary, error) {
	z := summing{p, s, only, map[string]FS{}}
	sum := &statsv1alpha1.Summary{Node: z.nodeStats(), Pods: []statsv1alpha1.PodStats{}}
	if !only {
		image, container, err := z.imageFS(ctx)
		if err != nil {
			return nil, err
		}
		sum.Node.Runtime = &statsv1alpha1.RuntimeStats{ImageFs: image, ContainerFs: container}
	}
	for _, v := range s.pods {
		sum.Pods = append(sum.Pods, z.podStats(v))
	}
	return sum, nil
}

func (z summing) nodeStats() statsv1alpha1.NodeStats {
	root := z.groups["/"]
	root.mem.limit = z.Machine.Memory
	n := statsv1alpha1.NodeStats{
		NodeName: z.Node, StartTime: metav1.NewTime(bootTime(z.Files)),
		CPU: cpuStats(root, z.rates["/"].value), Memory: memoryStats(root), Swap: swapStats(root, z.Machine.Swap),
	}
	n.SystemContainers = append(n.SystemContainers, z.system("pods", z.PodsCgroup)...)
	for _, name := range sortedKeys(z.System) {
		n.SystemContainers = append(n.SystemContainers, z.system(name, z.System[name])...)
	}
	if z.only {
		return n
	}
	now := metav1.Now()
	n.IO = ioStats(root)
	n.Network = networkStats(root.at, z.node)
	if fs, ok := z.statfs(z.Root); ok {
		n.Fs = fsStats(now.Time, fs, fs.Used, fs.Inodes-fs.InodesFree)
	}
	n.Rlimit = z.rlimit(now)
	return n
}

// system tells of a cgroup that is of no pod.
func (z summing) system(name, cgroup string) []statsv1alpha1.ContainerStats {
	g, ok := z.groups[cgroup]
	if !ok {
		return nil
	}
	if g.mem.limit == unlimited {
		g.mem.limit = z.Machine.Memory
	}
	born := g.born
	if name == "pods" { // the directory may be older than this kubelet
		born = z.started
	}
	c := statsv1alpha1.ContainerStats{
		Name: name, StartTime: metav1.NewTime(born),
		CPU: cpuStats(g, z.rates[cgroup].value), Memory: memoryStats(g), Swap: swapStats(g, unlimited),
	}
	if !z.only {
		c.IO = ioStats(g)
	}
	return []statsv1alpha1.ContainerStats{c}
}

func (z summing) rlimit(now metav1.Time) *statsv1alpha1.RlimitStats {
	pids, _ := number(z.Files, "proc/sys/kernel/pid_max")
	threads, ok := number(z.Files, "proc/sys/kernel/threads-max")
	if !ok {
		threads = pids
	}
	r := &statsv1alpha1.RlimitStats{Time: now, MaxPID: new(int64(min(pids, threads)))}
	if f := strings.Fields(text(z.Files, "proc/loadavg")); len(f) > 3 { // 0.1 0.2 0.3 running/all last
		_, all, _ := strings.Cut(f[3], "/")
		n, _ := parse(all)
		r.NumOfRunningProcesses = new(int64(n))
	}
	return r
}

// imageFS are the file systems of images and of what containers write.
func (z summing) imageFS(ctx context.Context) (image, container *statsv1alpha1.FsStats, err error) {
	resp, err := z.Images.ImageFsInfo(ctx, &runtimeapi.ImageFsInfoRequest{})
	if err != nil {
		return nil, nil, fmt.Errorf("image file system: %w", err)
	}
	of := func(list []*runtimeapi.FilesystemUsage) *statsv1alpha1.FsStats {
		if len(list) == 0 {
			return nil
		}
		return z.usage(list[0])
	}
	image, container = of(resp.ImageFilesystems), of(resp.ContainerFilesystems)
	if container == nil {
		container = image
	}
	return image, container, nil
}

// usage is what the runtime says is used of a file system of its.
func (z summing) usage(u *runtimeapi.FilesystemUsage) *statsv1alpha1.FsStats {
	at := time.Unix(0, u.Timestamp)
	if fs, ok := z.statfs(u.GetFsId().GetMountpoint()); ok {
		return fsStats(at, fs, u.GetUsedBytes().GetValue(), u.GetInodesUsed().GetValue())
	}
	return &statsv1alpha1.FsStats{Time: metav1.NewTime(at), UsedBytes: new(u.GetUsedBytes().GetValue()), InodesUsed: new(u.GetInodesUsed().GetValue())}
}

func (z summing) statfs(path string) (FS, bool) {
	if fs, ok := z.disk[path]; ok {
		return fs, true
	}
	fs, err := z.Statfs(path)
	if err != nil {
		return FS{}, false
	}
	z.disk[path] = fs
	return fs, true
}

func (z summing) podStats(v podView) statsv1alpha1.PodStats {
	m := v.sandbox.GetMetadata()
	ps := statsv1alpha1.PodStats{
		PodRef:     statsv1alpha1.PodReference{Name: m.GetName(), Namespace: m.GetNamespace(), UID: m.GetUid()},
		StartTime:  metav1.NewTime(time.Unix(0, v.sandbox.CreatedAt)),
		Containers: []statsv1alpha1.ContainerStats{},
	}
	for _, c := range v.containers {
		ps.Containers = append(ps.Containers, z.containerStats(v, c))
	}
	if g, ok := z.groups[v.cgroup]; ok {
		ps.CPU, ps.Memory, ps.Swap = cpuStats(g, z.rates[v.cgroup].value), memoryStats(g), swapStats(g, unlimited)
		if !z.only {
			ps.IO = ioStats(g)
		}
	}
	if z.only {
		return ps
	}
	if len(v.network) > 0 {
		ps.Network = networkStats(time.Now(), v.network)
	}
	if n := v.stats.GetLinux().GetProcess().GetProcessCount(); n != nil {
		ps.ProcessStats = &statsv1alpha1.ProcessStats{ProcessCount: new(n.GetValue())}
	}
	vols := z.measure(m.GetUid())
	for _, vol := range vols.list {
		ps.VolumeStats = append(ps.VolumeStats, vol.VolumeStats)
	}
	ps.EphemeralStorage = z.ephemeral(ps.Containers, vols)
	return ps
}

func (z summing) containerStats(v podView, c containerView) statsv1alpha1.ContainerStats {
	name := c.container.GetMetadata().GetName()
	cs := statsv1alpha1.ContainerStats{Name: name, StartTime: metav1.NewTime(time.Unix(0, c.container.CreatedAt))}
	if g, ok := z.groups[c.cgroup]; ok {
		cs.CPU, cs.Memory, cs.Swap = cpuStats(g, z.rates[c.cgroup].value), memoryStats(g), swapStats(g, unlimited)
		if !z.only {
			cs.IO = ioStats(g)
		}
	}
	if z.only {
		return cs
	}
	if w := c.stats.GetWritableLayer(); w != nil {
		cs.Rootfs = z.usage(w)
	}
	if fs, ok := z.statfs(z.LogDir); ok {
		logs, _ := filepath.Glob(filepath.Join(z.LogDir, fullName(v.sandbox), name, "*"))
		var all usage
		for _, path := range logs {
			u, _ := du(path) // rotated away meanwhile
			all = usage{all.bytes + u.bytes, all.inodes + u.inodes}
		}
		cs.Logs = fsStats(time.Now(), fs, all.bytes, all.inodes)
	}
	return cs
}

// ephemeral is what a pod takes of the node's disk for as long as it lives.
func (z summing) ephemeral(containers []statsv1alpha1.ContainerStats, vols measured) *statsv1alpha1.FsStats {
	fs, ok := z.statfs(z.Root)
	if !ok {
		return nil
	}
	bytes, inodes := vols.hosts.bytes, vols.hosts.inodes
	add := func(f *statsv1alpha1.FsStats) {
		if f != nil && f.UsedBytes != nil && f.InodesUsed != nil {
			bytes += *f.UsedBytes
			inodes += *f.InodesUsed
		}
	}
	for _, c := range containers {
		add(c.Rootfs)
		add(c.Logs)
	}
	for _, v := range vols.list {
		if v.ephemeral {
			add(&v.FsStats)
		}
	}
	return fsStats(time.Now(), fs, bytes, inodes)
}

func cpuStats(g sample, rate *uint64) *statsv1alpha1.CPUStats {
	if rate == nil {
		rate = new(uint64) // as stock, until there are two samples
	}
	return &statsv1alpha1.CPUStats{Time: metav1.NewTime(g.at), UsageCoreNanoSeconds: new(g.cpu.usage), UsageNanoCores: rate, PSI: psi(g.cpu.pressure)}
}

func memoryStats(g sample) *statsv1alpha1.MemoryStats {
	m := &statsv1alpha1.MemoryStats{
		Time:       metav1.NewTime(g.at),
		UsageBytes: new(g.mem.usage), WorkingSetBytes: new(g.mem.workingSet), RSSBytes: new(g.mem.rss),
		PageFaults: new(g.mem.faults), MajorPageFaults: new(g.mem.majorFaults),
		PSI: psi(g.mem.pressure),
	}
	if g.mem.limit != unlimited {
		m.AvailableBytes = new(g.mem.limit - min(g.mem.limit, g.mem.workingSet))
	}
	return m
}

// swapStats is limited by the machine where the cgroup is not.
func swapStats(g sample, machine uint64) *statsv1alpha1.SwapStats {
	s := &statsv1alpha1.SwapStats{Time: metav1.NewTime(g.at), SwapUsageBytes: new(g.mem.swap)}
	if limit := min(g.mem.swapLimit, machine); limit != unlimited {
		s.SwapAvailableBytes = new(limit - min(limit, g.mem.swap))
	}
	return s
}

func ioStats(g sample) *statsv1alpha1.IOStats {
	return &statsv1alpha1.IOStats{Time: metav1.NewTime(g.at), PSI: psi(g.ioPressure)}
}

// psi is nil where the kernel counts none, as with cgroup v1. Totals stay in
// the kernel's microseconds, as stock serves them.
func psi(p pressure) *statsv1alpha1.PSIStats {
	if !p.known {
		return nil
	}
	of := func(s stall) statsv1alpha1.PSIData {
		return statsv1alpha1.PSIData{Total: s.total, Avg10: s.avg10, Avg60: s.avg60, Avg300: s.avg300}
	}
	return &statsv1alpha1.PSIStats{Some: of(p.some), Full: of(p.full)}
}

// networkStats names eth0 as the interface that counts.
func networkStats(at time.Time, list []iface) *statsv1alpha1.NetworkStats {
	n := &statsv1alpha1.NetworkStats{Time: metav1.NewTime(at)}
	for _, i := range list {
		s := statsv1alpha1.InterfaceStats{Name: i.name, RxBytes: new(i.rx.bytes), RxErrors: new(i.rx.errors), TxBytes: new(i.tx.bytes), TxErrors: new(i.tx.errors)}
		if i.name == "eth0" {
			n.InterfaceStats = s
		}
		n.Interfaces = append(n.Interfaces, s)
	}
	return n
}

func fsStats(at time.Time, fs FS, bytes, inodes uint64) *statsv1alpha1.FsStats {
	return &statsv1alpha1.FsStats{
		Time: metav1.NewTime(at), AvailableBytes: new(fs.Available), CapacityBytes: new(fs.Capacity), UsedBytes: new(bytes),
		InodesFree: new(fs.InodesFree), Inodes: new(fs.Inodes), InodesUsed: new(inodes),
	}
}
