package parts

import (
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	kubeletconfig "k8s.io/kubelet/config/v1beta1"

	"github.com/knarr-dev/knarr/kubelet/image"
	"github.com/knarr-dev/knarr/kubelet/run"
)

// A Kubelet is the options of the kubelet.
type Kubelet struct {
	Kubeconfig string
	Runtime    string // endpoint of CRI
	Level      *slog.LevelVar

	NodeOptions
	PortOptions
	PodOptions

	hostname      string
	authorization authorizer
	authorities   func() *x509.CertPool
	taints        []corev1.Taint
	reserved      corev1.ResourceList
	logSize       int64
}

// NodeOptions are about the node as a whole.
type NodeOptions struct {
	NodeName       string
	NodeIPs        []string
	ProviderID     string
	Labels         map[string]string
	Taints         []string // as key=value:effect
	SystemReserved map[string]string
	KubeReserved   map[string]string
	EvictionHard   map[string]string
}

// PortOptions are about what the kubelet serves.
type PortOptions struct {
	Address           string
	Port              int
	ReadOnlyAddress   string
	ReadOnlyPort      int
	HealthzAddress    string
	HealthzPort       int
	CertDir           string
	CertFile, KeyFile string
	ClientCA          string
	Anonymous         bool
	Authorization     string
	Secure            net.Listener // opened already; else Port is
	ReadOnly, Healthz net.Listener // likewise
}

// PodOptions are about pods.
type PodOptions struct {
	Root, PodLogs, LogLinks  string // directories
	CgroupRoot               string
	ClusterDNS               []string
	ClusterDomain            string
	ResolvConf               string
	MaxPods, PodsPerCore     int
	MaxPIDs                  int64
	LogSize                  string
	LogFiles                 int
	ImageGCHigh, ImageGCLow  int
	ImageMinAge, ImageMaxAge time.Duration
	Sysctls                  []string
	SeccompDefault           bool
}

const (
	logLook    = 10 * time.Second
	streamIdle = 4 * time.Hour
	maxImages  = 50 // that the node's status tells of, as upstream
)

// Flags adds the flags that set the options.
func (o *Kubelet) Flags(fs *pflag.FlagSet) {
	fs.StringVar(&o.Kubeconfig, "kubeconfig", "", "where the API server is, and who this is")
	fs.StringVar(&o.NodeName, "hostname-override", "", "name of the node; that of the machine where empty")
	fs.StringSliceVar(&o.NodeIPs, "node-ip", nil, "addresses of the node, one for each family; found out where there are none")
	fs.StringVar(&o.ProviderID, "provider-id", "", "what a cloud knows the node by")
	fs.StringToStringVar(&o.Labels, "node-labels", nil, "labels for the node, as key=value, comma separated")
	fs.StringSliceVar(&o.Taints, "register-with-taints", nil, "taints that a new node has, as key=value:effect")
	fs.StringVar(&o.Runtime, "container-runtime-endpoint", "unix:///run/containerd/containerd.sock", "socket of the CRI runtime")
	fs.StringVar(&o.Root, "root-dir", "/var/lib/kubelet", "directory for the files of pods")
	fs.StringVar(&o.CertDir, "cert-dir", "/var/lib/kubelet/pki", "directory for a certificate that is made")
	fs.StringVar(&o.PodLogs, "pod-logs-dir", "/var/log/pods", "directory for the logs of containers")
	fs.StringVar(&o.LogLinks, "container-logs-dir", "/var/log/containers", "directory for links to the logs of containers; none where empty")
	fs.StringVar(&o.CgroupRoot, "cgroup-root", "/", "group below which the groups of pods are")
	fs.StringVar(&o.Address, "address", "0.0.0.0", "address to serve on")
	fs.IntVar(&o.Port, "port", 10250, "port to serve on, with authentication and authorization")
	fs.StringVar(&o.ReadOnlyAddress, "read-only-address", "127.0.0.1", "address to serve what is only to be read on, without authentication")
	fs.IntVar(&o.ReadOnlyPort, "read-only-port", 10255, "port to serve what is only to be read on, without authentication; 0 for none")
	fs.StringVar(&o.HealthzAddress, "healthz-bind-address", "127.0.0.1", "address of the health check")
	fs.IntVar(&o.HealthzPort, "healthz-port", 10248, "port of the health check; 0 for none")
	fs.StringVar(&o.CertFile, "tls-cert-file", "", "certificate to serve with; made in --cert-dir where there is none")
	fs.StringVar(&o.KeyFile, "tls-private-key-file", "", "key of --tls-cert-file")
	fs.StringVar(&o.ClientCA, "client-ca-file", "", "authorities: who shows a certificate of theirs is the user that it names")
	fs.BoolVar(&o.Anonymous, "anonymous-auth", false, "let requests without credentials in as system:anonymous")
	fs.StringVar(&o.Authorization, "authorization-mode", string(modeWebhook), "who may do what: Webhook asks the API server, AlwaysAllow does not")
	o.podFlags(fs)
}

// podFlags adds the flags about pods.
func (o *Kubelet) podFlags(fs *pflag.FlagSet) {
	fs.StringSliceVar(&o.ClusterDNS, "cluster-dns", nil, "addresses of the cluster's DNS")
	fs.StringVar(&o.ClusterDomain, "cluster-domain", "cluster.local", "domain of the cluster's names")
	fs.StringVar(&o.ResolvConf, "resolv-conf", "/etc/resolv.conf", "how the host resolves names")
	fs.IntVar(&o.MaxPods, "max-pods", 110, "most pods on the node")
	fs.IntVar(&o.PodsPerCore, "pods-per-core", 0, "most pods on the node for each of its processors; 0 for any number")
	fs.Int64Var(&o.MaxPIDs, "pod-max-pids", 0, "most processes in a pod; 0 for any number")
	fs.StringToStringVar(&o.SystemReserved, "system-reserved", nil, "what pods may not have because the system needs it, as cpu=100m,memory=1Gi")
	fs.StringToStringVar(&o.KubeReserved, "kube-reserved", nil, "what pods may not have because this and the runtime need it, as cpu=100m,memory=1Gi")
	fs.StringToStringVar(&o.EvictionHard, "eviction-hard", map[string]string{"memory.available": "100Mi"}, "what is kept free, as memory.available=100Mi")
	fs.StringVar(&o.LogSize, "container-log-max-size", "10Mi", "size from which the log of a container is put aside")
	fs.IntVar(&o.LogFiles, "container-log-max-files", 5, "files that the log of a container has at most")
	fs.IntVar(&o.ImageGCHigh, "image-gc-high-threshold", 85, "percentage of the disk in use from which unused images go")
	fs.IntVar(&o.ImageGCLow, "image-gc-low-threshold", 80, "percentage of the disk in use down to which they go")
	fs.DurationVar(&o.ImageMinAge, "minimum-image-ttl-duration", 2*time.Minute, "age below which an unused image stays")
	fs.DurationVar(&o.ImageMaxAge, "image-maximum-gc-age", 0, "age from which an unused image goes though there is room; 0 for never")
	fs.StringSliceVar(&o.Sysctls, "allowed-unsafe-sysctls", nil, "sysctls that pods may set besides the safe ones; one may end in *")
	fs.BoolVar(&o.SeccompDefault, "seccomp-default", false, "run containers that ask for no seccomp profile with the runtime's own")
}

// settings are what pods have in common.
func (o *Kubelet) settings(*agent) run.Settings {
	return run.Settings{
		CgroupRoot: o.CgroupRoot, PidsLimit: o.MaxPIDs,
		ClusterDNS: o.ClusterDNS, ClusterDomain: o.ClusterDomain, ResolvConf: o.ResolvConf,
		ImageGC:        image.Policy{High: int64(o.ImageGCHigh), Low: int64(o.ImageGCLow), MinAge: o.ImageMinAge, MaxAge: o.ImageMaxAge},
		AllowedSysctls: o.Sysctls, SeccompDefault: o.SeccompDefault,
	}
}

// quantities reads the flags that are amounts and taints.
func (o *Kubelet) quantities() error {
	size, err := resource.ParseQuantity(o.LogSize)
	if err != nil {
		return fmt.Errorf("--container-log-max-size: %w", err)
	}
	o.logSize = size.Value()
	if o.LogFiles < 2 {
		return fmt.Errorf("--container-log-max-files must be at least 2, and is %d", o.LogFiles)
	}
	o.reserved = corev1.ResourceList{}
	for flag, amounts := range map[string]map[string]string{"system-reserved": o.SystemReserved, "kube-reserved": o.KubeReserved} {
		for name, text := range amounts {
			q, err := resource.ParseQuantity(text)
			if err != nil {
				return fmt.Errorf("--%s: %s=%s: %w", flag, name, text, err)
			}
			sum := o.reserved[corev1.ResourceName(name)]
			sum.Add(q)
			o.reserved[corev1.ResourceName(name)] = sum
		}
	}
	o.taints = nil
	for _, text := range o.Taints {
		t, err := parseTaint(text)
		if err != nil {
			return fmt.Errorf("--register-with-taints: %w", err)
		}
		o.taints = append(o.taints, t)
	}
	if _, err := os.Stat(o.ResolvConf); err != nil && o.ResolvConf != "" {
		return fmt.Errorf("--resolv-conf: %w", err)
	}
	return nil
}

// parseTaint reads key=value:effect; the value may be missing.
func parseTaint(text string) (t corev1.Taint, err error) {
	pair, effect, ok := strings.Cut(text, ":")
	t.Key, t.Value, _ = strings.Cut(pair, "=")
	t.Effect = corev1.TaintEffect(effect)
	switch t.Effect {
	case corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute:
	default:
		ok = false
	}
	if !ok || t.Key == "" {
		return t, fmt.Errorf("%q is not key=value:effect", text)
	}
	return t, nil
}

// configz is the configuration in force in the form in which stock kubelets
// show theirs.
func (o *Kubelet) configz(string) kubeletconfig.KubeletConfiguration {
	c := kubeletconfig.KubeletConfiguration{
		Address: o.Address, Port: int32(o.Port), ReadOnlyPort: int32(o.ReadOnlyPort), HealthzBindAddress: o.HealthzAddress, HealthzPort: new(int32(o.HealthzPort)),
		ClusterDomain: o.ClusterDomain, ClusterDNS: o.ClusterDNS, MaxPods: int32(o.MaxPods), PodsPerCore: int32(o.PodsPerCore), PodPidsLimit: new(o.MaxPIDs),
		ResolverConfig: new(o.ResolvConf), CgroupRoot: o.CgroupRoot, ContainerLogMaxSize: o.LogSize, ContainerLogMaxFiles: new(int32(o.LogFiles)),
		ContainerRuntimeEndpoint: o.Runtime, EvictionHard: o.EvictionHard, SystemReserved: o.SystemReserved, KubeReserved: o.KubeReserved,
		AllowedUnsafeSysctls: o.Sysctls, SeccompDefault: new(o.SeccompDefault), PodLogsDir: o.PodLogs,
		ImageGCHighThresholdPercent: new(int32(o.ImageGCHigh)), ImageGCLowThresholdPercent: new(int32(o.ImageGCLow)),
		TLSCertFile: o.CertFile, TLSPrivateKeyFile: o.KeyFile,
	}
	c.Kind, c.APIVersion = "KubeletConfiguration", "kubelet.config.k8s.io/v1beta1"
	c.Authentication.X509.ClientCAFile, c.Authentication.Anonymous.Enabled, c.Authentication.Webhook.Enabled = o.ClientCA, new(o.Anonymous), new(true)
	c.Authorization.Mode = kubeletconfig.KubeletAuthorizationMode(o.Authorization)
	return c
}
