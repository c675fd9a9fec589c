package loop

import (
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/knarr-dev/knarr/sched"
)

// TestMetricNames holds the names to those that dashboards ask for.
func TestMetricNames(t *testing.T) {
	m := NewMetrics()
	r := prometheus.NewRegistry()
	if err := r.Register(m); err != nil {
		t.Fatal(err)
	}
	it := &item{Waiting: sched.Waiting{Pod: queued("a", 0)}, came: epoch}
	m.tried(scheduled, "default-scheduler", time.Millisecond)
	m.bound(it, epoch)
	m.entered(active, "PodAdd")
	m.size(newQueue(queuePlugins), 1, 1)
	m.evicted.WithLabelValues("success").Inc()
	m.evicting.WithLabelValues("success").Observe(1)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range families {
		got = append(got, f.GetName())
	}
	slices.Sort(got)
	expect(t, "metrics", got,
		"scheduler_cache_size",
		"scheduler_pending_pods",
		"scheduler_pod_scheduling_attempts",
		"scheduler_pod_scheduling_sli_duration_seconds",
		"scheduler_preemption_attempts_total",
		"scheduler_preemption_goroutines_duration_seconds",
		"scheduler_preemption_goroutines_execution_total",
		"scheduler_preemption_victims",
		"scheduler_queue_incoming_pods_total",
		"scheduler_schedule_attempts_total",
		"scheduler_scheduling_algorithm_duration_seconds",
		"scheduler_scheduling_attempt_duration_seconds",
	)
}
