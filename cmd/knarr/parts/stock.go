package parts

import (
	"fmt"
	"log/slog"
	"strings"

	"github.com/spf13/pflag"
)

// Options are what a part is told, by flags.
type Options interface {
	Flags(fs *pflag.FlagSet)
}

// Verbosity adds the flag for how much is logged. It returns a func that
// tells the level.
func Verbosity(fs *pflag.FlagSet) (level func() slog.Level) {
	v := fs.IntP("v", "v", 0, "how much to log: 4 or more for everything")
	return func() slog.Level {
		if *v >= 4 {
			return slog.LevelDebug
		}
		return slog.LevelInfo
	}
}

// harmless are flags of the stock components that knarr can do without: they
// tune what it does otherwise. A name ends in ! where the flag is a switch.
// What is not here and no flag of ours is refused by its name.
var harmless = map[string]string{
	"apiserver": `audit-log-batch-buffer-size audit-log-batch-max-size audit-log-batch-max-wait audit-log-batch-throttle-burst
		audit-log-batch-throttle-enable! audit-log-batch-throttle-qps audit-log-maxage audit-log-maxbackup audit-log-maxsize audit-log-mode
		audit-log-truncate-enabled! audit-log-truncate-max-batch-size audit-log-truncate-max-event-size
		contention-profiling! default-watch-cache-size delete-collection-workers enable-aggregator-routing! enable-bootstrap-token-auth!
		enable-garbage-collector! enable-logs-handler! enable-priority-and-fairness! endpoint-reconciler-type
		etcd-count-metric-poll-period etcd-db-metric-poll-interval etcd-healthcheck-timeout etcd-readycheck-timeout
		feature-gates goaway-chance http2-max-streams-per-connection kubelet-timeout lease-reuse-duration-seconds livez-grace-period
		log-flush-frequency log-json-info-buffer-size log-json-split-stream! logging-format max-connection-bytes-per-sec min-request-timeout
		peer-advertise-ip peer-advertise-port peer-ca-file permit-address-sharing! permit-port-sharing! profiling! request-timeout
		service-account-lookup! shutdown-delay-duration shutdown-send-retry-after! shutdown-watch-termination-grace-period
		storage-initialization-timeout watch-cache! watch-cache-sizes`,
	"controllers": `allocate-node-cidrs! authentication-kubeconfig authorization-kubeconfig authorization-always-allow-paths bind-address cert-dir
		client-ca-file cluster-name concurrent-deployment-syncs concurrent-endpoint-syncs concurrent-gc-syncs concurrent-job-syncs
		concurrent-namespace-syncs concurrent-rc-syncs concurrent-replicaset-syncs concurrent-service-endpoint-syncs
		concurrent-service-syncs concurrent-serviceaccount-token-syncs concurrent-statefulset-syncs concurrent-daemonset-syncs
		configure-cloud-routes! contention-profiling! controller-start-interval enable-dynamic-provisioning! enable-garbage-collector!
		endpointslice-updates-batch-period endpoint-updates-batch-period feature-gates kube-api-burst kube-api-content-type kube-api-qps
		leader-elect-lease-duration leader-elect-renew-deadline leader-elect-resource-lock leader-elect-resource-name
		leader-elect-resource-namespace leader-elect-retry-period log-flush-frequency logging-format min-resync-period
		namespace-sync-period profiling! requestheader-allowed-names requestheader-client-ca-file requestheader-extra-headers-prefix
		requestheader-group-headers requestheader-username-headers secure-port service-account-private-key-file
		use-service-account-credentials!`,
	"scheduler": `authentication-kubeconfig authorization-kubeconfig authorization-always-allow-paths bind-address cert-dir client-ca-file
		contention-profiling! feature-gates kube-api-burst kube-api-content-type kube-api-qps leader-elect-lease-duration
		leader-elect-renew-deadline leader-elect-resource-lock leader-elect-resource-name leader-elect-resource-namespace
		leader-elect-retry-period log-flush-frequency logging-format pod-max-in-unschedulable-pods-duration profiling!
		requestheader-allowed-names requestheader-client-ca-file requestheader-extra-headers-prefix requestheader-group-headers
		requestheader-username-headers secure-port`,
	"kubelet": `cgroups-per-qos! contention-profiling! enable-controller-attach-detach! enable-debugging-handlers! event-burst event-qps
		fail-swap-on! feature-gates file-check-frequency http-check-frequency kube-api-burst kube-api-content-type kube-api-qps
		local-storage-capacity-isolation! log-flush-frequency logging-format maximum-dead-containers maximum-dead-containers-per-container
		minimum-container-ttl-duration node-status-update-frequency oom-score-adj registry-burst registry-qps rotate-certificates!
		runtime-request-timeout serialize-image-pulls! streaming-connection-idle-timeout sync-frequency volume-stats-agg-period`,
	"proxy": `config-sync-period conntrack-max-per-core conntrack-min conntrack-tcp-timeout-close-wait
		conntrack-tcp-timeout-established detect-local-mode feature-gates iptables-masquerade-bit iptables-min-sync-period iptables-sync-period
		kube-api-burst kube-api-content-type kube-api-qps log-flush-frequency logging-format masquerade-all! oom-score-adj profiling!
		proxy-mode show-hidden-metrics-for-version`,
}

// Stock lets a part take the flags of its stock counterpart that it can do
// without. It returns a func that tells which of them were given.
func Stock(part string, fs *pflag.FlagSet) (given func() []string) {
	var names []string
	for name := range strings.FieldsSeq(harmless[part]) {
		name, isSwitch := strings.CutSuffix(name, "!")
		if fs.Lookup(name) != nil {
			panic(fmt.Sprintf("flag %s of %s does something and is listed as harmless", name, part)) // a mistake in the list
		}
		fs.String(name, "", "a flag of the stock component, without effect")
		f := fs.Lookup(name)
		f.Hidden = true
		if isSwitch {
			f.NoOptDefVal = "true"
		}
		names = append(names, name)
	}
	return func() (got []string) {
		for _, name := range names {
			if fs.Changed(name) {
				got = append(got, "--"+name)
			}
		}
		return got
	}
}
