package stats

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// patience is for a runtime that does not answer a metrics collector.
const patience = 10 * time.Second

// A collector gathers metrics anew each time it is asked.
type collector func(ctx context.Context, out chan<- prometheus.Metric)

// Describe implements prometheus.Collector. There is nothing to say before the fact.
func (c collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c(ctx, out)
}

// glance is a snapshot for a collector, nil where none could be taken.
func (p *Provider) glance(ctx context.Context, n need) *snapshot {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, err := p.look(ctx, n)
	if err != nil {
		slog.WarnContext(ctx, "gather metrics", "err", err)
		return nil
	}
	p.update(s)
	return s
}

// A metric is one of a family: its value of a sample, where it has one.
type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	of   func(g sample) float64
}

func newMetric(name, help string, kind prometheus.ValueType, labels []string, of func(g sample) float64) metric {
	return metric{prometheus.NewDesc(name, help, labels, nil), kind, of}
}

// send sends one value as of a time, which tells it from what was scraped late.
func (m metric) send(out chan<- prometheus.Metric, g sample, labels ...string) {
	out <- prometheus.NewMetricWithTimestamp(g.at, prometheus.MustNewConstMetric(m.desc, m.kind, m.of(g), labels...))
}

const (
	counter = prometheus.CounterValue
	gauge   = prometheus.GaugeValue
)

func seconds(ns uint64) float64 { return float64(ns) / 1e9 }

// limited is 0 where there is no limit, as collectors expect.
func limited(n uint64) float64 {
	if n == unlimited {
		return 0
	}
	return float64(n)
}

func unixTime(t time.Time) float64 { return float64(t.UnixNano()) / 1e9 }

var (
	ofPod       = []string{"pod", "namespace"}
	ofContainer = []string{"container", "pod", "namespace"}

	nodeResources = []metric{
		newMetric("node_cpu_usage_seconds_total", "Processor time that the node has used.", counter, nil, func(g sample) float64 { return seconds(g.cpu.usage) }),
		newMetric("node_memory_working_set_bytes", "Memory that the node uses and cannot drop.", gauge, nil, func(g sample) float64 { return limited(g.mem.workingSet) }),
		newMetric("node_swap_usage_bytes", "Swap that the node uses.", gauge, nil, func(g sample) float64 { return limited(g.mem.swap) }),
	}
	podResources = []metric{
		newMetric("pod_cpu_usage_seconds_total", "Processor time that the pod has used.", counter, ofPod, func(g sample) float64 { return seconds(g.cpu.usage) }),
		newMetric("pod_memory_working_set_bytes", "Memory that the pod uses and cannot drop.", gauge, ofPod, func(g sample) float64 { return limited(g.mem.workingSet) }),
		newMetric("pod_swap_usage_bytes", "Swap that the pod uses.", gauge, ofPod, func(g sample) float64 { return limited(g.mem.swap) }),
	}
	containerResources = []metric{
		newMetric("container_cpu_usage_seconds_total", "Processor time that the container has used.", counter, ofContainer, func(g sample) float64 { return seconds(g.cpu.usage) }),
		newMetric("container_memory_working_set_bytes", "Memory that the container uses and cannot drop.", gauge, ofContainer, func(g sample) float64 { return limited(g.mem.workingSet) }),
		newMetric("container_swap_usage_bytes", "Swap that the container uses.", gauge, ofContainer, func(g sample) float64 { return limited(g.mem.swap) }),
		newMetric("container_swap_limit_bytes", "Swap that the container may use.", gauge, ofContainer, func(g sample) float64 { return limited(g.mem.swapLimit) }),
	}
	containerStart = prometheus.NewDesc("container_start_time_seconds", "When the container was started, in Unix time.", ofContainer, nil)
	scrapeErrors   = []*prometheus.Desc{
		prometheus.NewDesc("resource_scrape_error", "1 where the node's use could not be told.", nil, nil),
		prometheus.NewDesc("scrape_error", "1 where the node's use could not be told.", nil, nil),
	}
)

// Resource collects what /metrics/resource serves.
// contract: HT-6
func (p *Provider) Resource() prometheus.Collector { return collector(p.resource) }

func (p *Provider) resource(ctx context.Context, out chan<- prometheus.Metric) {
	s, failed := p.glance(ctx, need{}), 0.0
	if s == nil {
		s, failed = &snapshot{}, 1
	}
	for _, d := range scrapeErrors {
		out <- prometheus.MustNewConstMetric(d, gauge, failed)
	}
	send := func(metrics []metric, cgroup string, labels ...string) {
		if g, ok := s.groups[cgroup]; ok {
			for _, m := range metrics {
				m.send(out, g, labels...)
			}
		}
	}
	send(nodeResources, "/")
	for _, v := range s.pods {
		m := v.sandbox.GetMetadata()
		send(podResources, v.cgroup, m.GetName(), m.GetNamespace())
		for _, c := range v.containers {
			labels := []string{c.container.GetMetadata().GetName(), m.GetName(), m.GetNamespace()}
			send(containerResources, c.cgroup, labels...)
			out <- prometheus.MustNewConstMetric(containerStart, gauge, unixTime(time.Unix(0, c.container.CreatedAt)), labels...)
		}
	}
}

var (
	runningPods       = prometheus.NewDesc("kubelet_running_pods", "Pods that have a running sandbox.", nil, nil)
	runningContainers = prometheus.NewDesc("kubelet_running_containers", "Containers by their state.", []string{"container_state"}, nil)
	nodeName          = prometheus.NewDesc("kubelet_node_name", "The node's name. The value is always 1.", []string{"node"}, nil)
	cgroupVersion     = prometheus.NewDesc("kubelet_cgroup_version", "The version of cgroups that the node accounts memory by.", nil, nil)

	ofVolume    = []string{"namespace", "persistentvolumeclaim"}
	volumeStats = []struct {
		desc *prometheus.Desc
		of   func(v volume) *uint64
	}{
		{prometheus.NewDesc("kubelet_volume_stats_capacity_bytes", "Size of the volume.", ofVolume, nil), func(v volume) *uint64 { return v.CapacityBytes }},
		{prometheus.NewDesc("kubelet_volume_stats_available_bytes", "Bytes free in the volume.", ofVolume, nil), func(v volume) *uint64 { return v.AvailableBytes }},
		{prometheus.NewDesc("kubelet_volume_stats_used_bytes", "Bytes used in the volume.", ofVolume, nil), func(v volume) *uint64 { return v.UsedBytes }},
		{prometheus.NewDesc("kubelet_volume_stats_inodes", "Inodes of the volume.", ofVolume, nil), func(v volume) *uint64 { return v.Inodes }},
		{prometheus.NewDesc("kubelet_volume_stats_inodes_free", "Inodes free in the volume.", ofVolume, nil), func(v volume) *uint64 { return v.InodesFree }},
		{prometheus.NewDesc("kubelet_volume_stats_inodes_used", "Inodes used in the volume.", ofVolume, nil), func(v volume) *uint64 { return v.InodesUsed }},
	}
)

// Kubelet collects what of the kubelet's own metrics is read off the node.
func (p *Provider) Kubelet() prometheus.Collector { return collector(p.kubelet) }

func (p *Provider) kubelet(ctx context.Context, out chan<- prometheus.Metric) {
	out <- prometheus.MustNewConstMetric(nodeName, gauge, 1, p.Node)
	out <- prometheus.MustNewConstMetric(cgroupVersion, gauge, float64(p.cgroups.version()))
	pods, err := p.list(ctx)
	if err != nil {
		slog.WarnContext(ctx, "gather metrics", "err", err)
		return
	}
	containers := 0
	for _, v := range pods {
		containers += len(v.containers)
	}
	out <- prometheus.MustNewConstMetric(runningPods, gauge, float64(len(pods)))
	out <- prometheus.MustNewConstMetric(runningContainers, gauge, float64(containers), "running")

	p.mu.Lock()
	defer p.mu.Unlock()
	z := summing{p, &snapshot{}, false, map[string]FS{}}
	told := map[string]bool{} // claims; pods may share one
	for _, v := range pods {
		for _, vol := range z.measure(v.sandbox.GetMetadata().GetUid()).list {
			if vol.PVCRef == nil || told[vol.PVCRef.Namespace+"/"+vol.PVCRef.Name] {
				continue
			}
			told[vol.PVCRef.Namespace+"/"+vol.PVCRef.Name] = true
			for _, m := range volumeStats {
				out <- prometheus.MustNewConstMetric(m.desc, gauge, float64(*m.of(vol)), vol.PVCRef.Namespace, vol.PVCRef.Name)
			}
		}
	}
}
