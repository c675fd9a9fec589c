package containerd

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/template"
)

// The second version of containerd's configuration is what 1.6 to 2.x all
// read; what one of them does not know it passes over.
//
// Everything lies below one directory, the mounts of network namespaces
// included, so that Remove finds it. The plugins that are left out serve other
// file systems and other ways to start containers.
var configuration = template.Must(template.New("").Parse(`version = 2
root = {{.Root}}
state = {{.State}}
disabled_plugins = [
  "io.containerd.internal.v1.opt", "io.containerd.internal.v1.restart", "io.containerd.monitor.container.v1.restart",
  "io.containerd.nri.v1.nri", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs",
  "io.containerd.differ.v1.erofs", "io.containerd.mount-handler.v1.erofs",
]

[grpc]
  address = {{.Socket}}

# In a form that only 2.x knows: else it measures each container every second.
[plugins."io.containerd.cri.v1.runtime"]
  stats_collect_period = "30s"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = {{.Sandbox}}
  restrict_oom_score_adj = {{.Restrict}}
  netns_mounts_under_state_dir = true
  tolerate_missing_hugetlb_controller = true
  stream_server_address = "127.0.0.1"
  stats_collect_period = 60
  enable_unprivileged_ports = true
  enable_unprivileged_icmp = true

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = {{.CNIBin}}
    conf_dir = {{.CNIConf}}
    use_internal_loopback = true

  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = {{.Certs}}

  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
`))

// text is the configuration file.
func (c Config) text() ([]byte, error) {
	var b bytes.Buffer
	err := configuration.Execute(&b, map[string]any{
		"Root": strconv.Quote(filepath.Join(c.Dir, "root")), "State": strconv.Quote(c.state()),
		"Socket": strconv.Quote(c.socket()), "Sandbox": strconv.Quote(c.Sandbox), "Restrict": !mayProtect(),
		"CNIBin": strconv.Quote(c.CNIBin), "CNIConf": strconv.Quote(c.CNIConf), "Certs": strconv.Quote(c.registries()),
	})
	if err != nil {
		return nil, fmt.Errorf("configure containerd: %w", err)
	}
	return b.Bytes(), nil
}

func (c Config) state() string { return filepath.Join(c.Dir, "state") }

// mayProtect tells whether this process may make others less likely to be
// killed when memory is short, as kubelets do with the pods that matter. In
// many containers it may not, and runc fails where it tries.
func mayProtect() bool {
	const sysResource = 24
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if set, ok := strings.CutPrefix(line, "CapEff:"); ok {
			caps, err := strconv.ParseUint(strings.TrimSpace(set), 16, 64)
			return err == nil && caps&(1<<sysResource) != 0
		}
	}
	return false
}
