package stats

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The families that /metrics/cadvisor serves, by the names that dashboards
// know. A list is served of a cgroup where its condition holds.

var (
	whose    = []string{"container", "id", "image", "name", "namespace", "pod"}
	machines = []string{"boot_id", "machine_id", "system_uuid"}
)

func with(label string) []string { return append(slices.Clip(whose), label) }

var families = []struct {
	when    func(g sample) bool
	metrics []metric
}{
	{func(sample) bool { return true }, []metric{
		newMetric("container_cpu_user_seconds_total", "Processor time in user space.", counter, whose, func(g sample) float64 { return seconds(g.cpu.user) }),
		newMetric("container_cpu_system_seconds_total", "Processor time in the kernel.", counter, whose, func(g sample) float64 { return seconds(g.cpu.system) }),
		newMetric("container_memory_usage_bytes", "Memory in use, caches included.", gauge, whose, func(g sample) float64 { return limited(g.mem.usage) }),
		newMetric("container_memory_working_set_bytes", "Memory in use that cannot be dropped.", gauge, whose, func(g sample) float64 { return limited(g.mem.workingSet) }),
		newMetric("container_memory_rss", "Memory that is no copy of a file.", gauge, whose, func(g sample) float64 { return limited(g.mem.rss) }),
		newMetric("container_memory_cache", "Memory that holds copies of files.", gauge, whose, func(g sample) float64 { return limited(g.mem.cache) }),
		newMetric("container_memory_mapped_file", "Memory that maps files.", gauge, whose, func(g sample) float64 { return limited(g.mem.mapped) }),
		newMetric("container_memory_kernel_usage", "Memory that the kernel uses on behalf of it.", gauge, whose, func(g sample) float64 { return limited(g.mem.kernel) }),
		newMetric("container_memory_swap", "Swap in use.", gauge, whose, func(g sample) float64 { return limited(g.mem.swap) }),
		newMetric("container_memory_max_usage_bytes", "The most memory that was ever in use.", gauge, whose, func(g sample) float64 { return limited(g.mem.peak) }),
		newMetric("container_memory_failcnt", "How often memory hit its limit.", counter, whose, func(g sample) float64 { return limited(g.mem.failures) }),
		newMetric("container_memory_total_active_file_bytes", "Copies of files used of late.", gauge, whose, func(g sample) float64 { return limited(g.mem.activeFile) }),
		newMetric("container_memory_total_inactive_file_bytes", "Copies of files not used of late.", gauge, whose, func(g sample) float64 { return limited(g.mem.inactiveFile) }),
		newMetric("container_oom_events_total", "How often the kernel killed for want of memory.", counter, whose, func(g sample) float64 { return limited(g.mem.ooms) }),
		newMetric("container_processes", "Processes.", gauge, whose, func(g sample) float64 { return limited(g.processes) }),
		newMetric("container_threads", "Threads.", gauge, whose, func(g sample) float64 { return limited(g.threads) }),
		newMetric("container_threads_max", "Threads allowed, 0 for any number.", gauge, whose, func(g sample) float64 { return limited(g.maxThreads) }),
		newMetric("container_last_seen", "When it was last seen, in Unix time.", gauge, whose, func(g sample) float64 { return float64(g.at.Unix()) }),
		newMetric("container_start_time_seconds", "When it was started, in Unix time.", gauge, whose, func(g sample) float64 { return float64(g.born.Unix()) }),
		newMetric("container_spec_cpu_period", "The period of the processor limit in microseconds.", gauge, whose, func(g sample) float64 { return limited(g.cpu.period) }),
		newMetric("container_spec_cpu_shares", "Its share of the processor under contention.", gauge, whose, func(g sample) float64 { return limited(g.cpu.shares) }),
		newMetric("container_spec_memory_limit_bytes", "The memory limit, 0 for none.", gauge, whose, func(g sample) float64 { return limited(g.mem.limit) }),
		newMetric("container_spec_memory_swap_limit_bytes", "The swap limit, 0 for none.", gauge, whose, func(g sample) float64 { return limited(g.mem.swapLimit) }),
		newMetric("container_spec_memory_reservation_limit_bytes", "Memory that it is left under pressure, 0 for none.", gauge, whose, func(g sample) float64 { return limited(g.mem.reservation) }),
	}},
	{func(g sample) bool { return g.cpu.quota != unlimited }, []metric{
		newMetric("container_spec_cpu_quota", "Microseconds of processor time allowed in each period.", gauge, whose, func(g sample) float64 { return limited(g.cpu.quota) }),
		newMetric("container_cpu_cfs_periods_total", "Periods of the processor limit that have passed.", counter, whose, func(g sample) float64 { return limited(g.cpu.periods) }),
		newMetric("container_cpu_cfs_throttled_periods_total", "Periods in which it had to wait.", counter, whose, func(g sample) float64 { return limited(g.cpu.throttled) }),
		newMetric("container_cpu_cfs_throttled_seconds_total", "Time that it had to wait.", counter, whose, func(g sample) float64 { return seconds(g.cpu.throttledTime) }),
		newMetric("container_cpu_cfs_burst_periods_total", "Periods in which it used more than its quota.", counter, whose, func(g sample) float64 { return limited(g.cpu.bursts) }),
		newMetric("container_cpu_cfs_burst_seconds_total", "Time that it used beyond its quota.", counter, whose, func(g sample) float64 { return seconds(g.cpu.burst) }),
	}},
	{func(g sample) bool { return g.cpu.pressure.known }, []metric{
		newMetric("container_pressure_cpu_stalled_seconds_total", "Time in which all waited for a processor.", counter, whose, func(g sample) float64 { return float64(g.cpu.pressure.full.total) / 1e6 }),
		newMetric("container_pressure_cpu_waiting_seconds_total", "Time in which some waited for a processor.", counter, whose, func(g sample) float64 { return float64(g.cpu.pressure.some.total) / 1e6 }),
		newMetric("container_pressure_memory_stalled_seconds_total", "Time in which all waited for memory.", counter, whose, func(g sample) float64 { return float64(g.mem.pressure.full.total) / 1e6 }),
		newMetric("container_pressure_memory_waiting_seconds_total", "Time in which some waited for memory.", counter, whose, func(g sample) float64 { return float64(g.mem.pressure.some.total) / 1e6 }),
		newMetric("container_pressure_io_stalled_seconds_total", "Time in which all waited for a disk.", counter, whose, func(g sample) float64 { return float64(g.ioPressure.full.total) / 1e6 }),
		newMetric("container_pressure_io_waiting_seconds_total", "Time in which some waited for a disk.", counter, whose, func(g sample) float64 { return float64(g.ioPressure.some.total) / 1e6 }),
	}},
}

var (
	cpuUsage = newMetric("container_cpu_usage_seconds_total", "Processor time.", counter, with("cpu"), func(g sample) float64 { return seconds(g.cpu.usage) })
	faults   = prometheus.NewDesc("container_memory_failures_total", "Page faults.", append(with("failure_type"), "scope"), nil)

	perInterface = []struct {
		desc *prometheus.Desc
		of   func(i iface) uint64
	}{
		{prometheus.NewDesc("container_network_receive_bytes_total", "Bytes received.", with("interface"), nil), func(i iface) uint64 { return i.rx.bytes }},
		{prometheus.NewDesc("container_network_receive_packets_total", "Packets received.", with("interface"), nil), func(i iface) uint64 { return i.rx.packets }},
		{prometheus.NewDesc("container_network_receive_packets_dropped_total", "Packets dropped on their way in.", with("interface"), nil), func(i iface) uint64 { return i.rx.dropped }},
		{prometheus.NewDesc("container_network_receive_errors_total", "Errors while receiving.", with("interface"), nil), func(i iface) uint64 { return i.rx.errors }},
		{prometheus.NewDesc("container_network_transmit_bytes_total", "Bytes sent.", with("interface"), nil), func(i iface) uint64 { return i.tx.bytes }},
		{prometheus.NewDesc("container_network_transmit_packets_total", "Packets sent.", with("interface"), nil), func(i iface) uint64 { return i.tx.packets }},
		{prometheus.NewDesc("container_network_transmit_packets_dropped_total", "Packets dropped on their way out.", with("interface"), nil), func(i iface) uint64 { return i.tx.dropped }},
		{prometheus.NewDesc("container_network_transmit_errors_total", "Errors while sending.", with("interface"), nil), func(i iface) uint64 { return i.tx.errors }},
	}

	perDevice = []struct {
		desc *prometheus.Desc
		of   func(b blocks) uint64
	}{
		{prometheus.NewDesc("container_fs_reads_bytes_total", "Bytes read from the device.", with("device"), nil), func(b blocks) uint64 { return b.readBytes }},
		{prometheus.NewDesc("container_fs_writes_bytes_total", "Bytes written to the device.", with("device"), nil), func(b blocks) uint64 { return b.writeBytes }},
		{prometheus.NewDesc("container_fs_reads_total", "Reads from the device.", with("device"), nil), func(b blocks) uint64 { return b.reads }},
		{prometheus.NewDesc("container_fs_writes_total", "Writes to the device.", with("device"), nil), func(b blocks) uint64 { return b.writes }},
	}

	perFilesystem = []struct {
		desc *prometheus.Desc
		of   func(f FS) uint64
	}{
		{prometheus.NewDesc("container_fs_limit_bytes", "Size of the file system.", with("device"), nil), func(f FS) uint64 { return f.Capacity }},
		{prometheus.NewDesc("container_fs_usage_bytes", "Bytes used in the file system.", with("device"), nil), func(f FS) uint64 { return f.Used }},
		{prometheus.NewDesc("container_fs_inodes_total", "Inodes of the file system.", with("device"), nil), func(f FS) uint64 { return f.Inodes }},
		{prometheus.NewDesc("container_fs_inodes_free", "Inodes free in the file system.", with("device"), nil), func(f FS) uint64 { return f.InodesFree }},
	}

	perMachine = []struct {
		desc *prometheus.Desc
		of   func(m *Machine) uint64
	}{
		{prometheus.NewDesc("machine_cpu_cores", "Processors, each thread counted.", machines, nil), func(m *Machine) uint64 { return uint64(m.Cores) }},
		{prometheus.NewDesc("machine_cpu_physical_cores", "Cores.", machines, nil), func(m *Machine) uint64 { return uint64(m.PhysicalCores) }},
		{prometheus.NewDesc("machine_cpu_sockets", "Sockets.", machines, nil), func(m *Machine) uint64 { return uint64(m.Sockets) }},
		{prometheus.NewDesc("machine_memory_bytes", "Memory.", machines, nil), func(m *Machine) uint64 { return m.Memory }},
		{prometheus.NewDesc("machine_swap_bytes", "Swap.", machines, nil), func(m *Machine) uint64 { return m.Swap }},
	}

	scrapeFailed = prometheus.NewDesc("container_scrape_error", "1 where containers could not be told of.", nil, nil)
	version      = prometheus.NewDesc("cadvisor_version_info", "The kernel and the system. The value is always 1.", []string{"cadvisorRevision", "cadvisorVersion", "dockerVersion", "kernelVersion", "osVersion"}, nil)
)

// Cadvisor collects what /metrics/cadvisor serves.
// contract: HT-7
func (p *Provider) Cadvisor() prometheus.Collector { return collector(p.cadvisor) }

func (p *Provider) cadvisor(ctx context.Context, out chan<- prometheus.Metric) {
	m := p.Machine
	for _, d := range perMachine {
		out <- prometheus.MustNewConstMetric(d.desc, gauge, float64(d.of(m)), m.BootID, m.MachineID, m.SystemUUID)
	}
	out <- prometheus.MustNewConstMetric(version, gauge, 1, "", "", "", m.kernel, m.os)
	s, failed := p.glance(ctx, need{network: true, detail: true}), 0.0
	if s == nil {
		s, failed = &snapshot{}, 1
	}
	out <- prometheus.MustNewConstMetric(scrapeFailed, gauge, failed)
	for _, level := range s.levels {
		p.send(out, s.groups[level], "", level, "", "", "", "")
	}
	root := []string{"", "/", "", "", "", ""}
	now := time.Now()
	sendInterfaces(out, now, s.node, root)
	for _, f := range m.Filesystems {
		if fs, err := p.Statfs(f.mount); err == nil {
			for _, d := range perFilesystem {
				out <- stamped(now, d.desc, gauge, d.of(fs), append(root, f.Device)...)
			}
		}
	}
	for _, v := range s.pods {
		meta := v.sandbox.GetMetadata()
		if g, ok := s.groups[v.cgroup]; ok && v.cgroup != v.sandbox.Id {
			p.send(out, g, "", v.cgroup, "", "", meta.GetNamespace(), meta.GetName())
		}
		pause := []string{"", v.pause, "", v.sandbox.Id, meta.GetNamespace(), meta.GetName()}
		if g, ok := s.groups[v.pause]; ok {
			p.send(out, g, pause...)
		}
		sendInterfaces(out, now, v.network, pause)
		for _, c := range v.containers {
			if g, ok := s.groups[c.cgroup]; ok {
				image := c.container.GetImage()
				p.send(out, g, c.container.GetMetadata().GetName(), c.cgroup, firstOf(image.GetUserSpecifiedImage(), image.GetImage()), c.container.Id, meta.GetNamespace(), meta.GetName())
			}
		}
	}
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func stamped(at time.Time, d *prometheus.Desc, kind prometheus.ValueType, n uint64, labels ...string) prometheus.Metric {
	return prometheus.NewMetricWithTimestamp(at, prometheus.MustNewConstMetric(d, kind, float64(n), labels...))
}

// send sends all families of one cgroup.
func (p *Provider) send(out chan<- prometheus.Metric, g sample, labels ...string) {
	labels = slices.Clip(labels)
	for _, f := range families {
		if f.when(g) {
			for _, m := range f.metrics {
				m.send(out, g, labels...)
			}
		}
	}
	cpuUsage.send(out, g, append(labels, "total")...)
	for _, scope := range []string{"container", "hierarchy"} {
		out <- stamped(g.at, faults, counter, g.mem.faults, append(labels, "pgfault", scope)...)
		out <- stamped(g.at, faults, counter, g.mem.majorFaults, append(labels, "pgmajfault", scope)...)
	}
	for _, b := range g.io {
		device := b.device
		if d, ok := p.Machine.Disks[b.device]; ok {
			device = "/dev/" + strings.TrimPrefix(d.Name, "/dev/")
		}
		for _, d := range perDevice {
			out <- stamped(g.at, d.desc, counter, d.of(b), append(labels, device)...)
		}
	}
}

func sendInterfaces(out chan<- prometheus.Metric, at time.Time, list []iface, labels []string) {
	labels = slices.Clip(labels)
	for _, i := range list {
		for _, d := range perInterface {
			out <- stamped(at, d.desc, counter, d.of(i), append(labels, i.name)...)
		}
	}
}
