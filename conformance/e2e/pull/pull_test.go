//go:build integration

// Package pull tries the images that conformance/images makes, as a node
// does: a containerd of its own pulls them through the mirror and runs them.
package pull

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	root   = "../../.."
	cgroup = "/knarr-pull"
)

const config = `version = 3
root = %[1]q
state = %[2]q
[grpc]
address = %[3]q
[plugins."io.containerd.cri.v1.images"]
snapshotter = "overlayfs"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "registry.k8s.io/pause:3.10.2"
[plugins."io.containerd.cri.v1.images".registry]
config_path = %[4]q
[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
tolerate_missing_hugetlb_controller = true
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["/usr/lib/cni", "/opt/cni/bin"]
conf_dir = %[5]q
`

const network = `{"cniVersion": "1.0.0", "name": "pull", "plugins": [
 {"type": "ptp", "ipMasq": false, "ipam": {"type": "host-local", "dataDir": %q, "subnet": "10.199.7.0/24"}}]}`

// A node is a containerd, and a registry that it pulls from.
type node struct {
	images  cri.ImageServiceClient
	runtime cri.RuntimeServiceClient
	names   []string // of all images
}

func start(t *testing.T) *node {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, for containers")
	}
	for _, need := range []string{"bin/containerd", "bin/conformance/images", "bin/images/index.json"} {
		if _, err := os.Stat(filepath.Join(root, need)); err != nil {
			t.Skipf("needs %s: make tools images", need)
		}
	}
	dir, err := os.MkdirTemp("/tmp", "pull") //nolint:usetesting // the path of a socket has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { remove(t, dir) })
	bin, err := filepath.Abs(filepath.Join(root, "bin"))
	if err != nil {
		t.Fatal(err)
	}
	n := &node{}
	address := n.serve(t, bin)
	write(t, filepath.Join(dir, "config.toml"), fmt.Sprintf(config, dir+"/root", dir+"/state", dir+"/s", dir+"/certs.d", dir+"/net"))
	write(t, filepath.Join(dir, "net", "1.conflist"), fmt.Sprintf(network, dir+"/ipam"))
	command(t, bin+"/conformance/images", "hosts", "-dir", bin+"/images", "-certs", dir+"/certs.d", "-registry", address)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin+"/containerd", "--config", dir+"/config.toml")
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
	cmd.Stdout, cmd.Stderr = log, log
	begin(t, cmd)
	conn, err := grpc.NewClient("unix://"+dir+"/s", grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	n.images, n.runtime = cri.NewImageServiceClient(conn), cri.NewRuntimeServiceClient(conn)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := n.runtime.Version(ctx, &cri.VersionRequest{}, grpc.WaitForReady(true)); err != nil {
		text, _ := os.ReadFile(log.Name())
		t.Fatalf("containerd does not answer: %v\n%s", err, text)
	}
	return n
}

// serve starts the registry and is its address.
func (n *node) serve(t *testing.T, bin string) string {
	t.Helper()
	for line := range strings.Lines(command(t, bin+"/conformance/images", "list", "-dir", bin+"/images", "-suite", "/nowhere")) {
		if f := strings.Fields(line); f[1] != "not" {
			n.names = append(n.names, f[0])
		}
	}
	cmd := exec.Command(bin+"/conformance/images", "serve", "-dir", bin+"/images", "-listen", "127.0.0.1:0")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	begin(t, cmd)
	line, err := bufio.NewReader(out).ReadString('\n')
	_, address, found := strings.Cut(strings.TrimSpace(line), "http://")
	if err != nil || !found {
		t.Fatalf("the registry says %q, %v", line, err)
	}
	return address
}

func begin(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
}

// remove unmounts what containerd left mounted, and removes its files.
func remove(t *testing.T, dir string) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Error(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if at := strings.Fields(line)[1]; strings.HasPrefix(at, dir+"/") {
			_ = syscall.Unmount(at, syscall.MNT_DETACH)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Error(err)
	}
	cgroups, err := filepath.Glob("/sys/fs/cgroup/*" + cgroup)
	if err != nil {
		t.Error(err)
	}
	for _, dir := range append(cgroups, "/sys/fs/cgroup"+cgroup) {
		_ = os.Remove(dir)
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
	return string(out)
}

func (n *node) pull(ctx context.Context, image string, auth *cri.AuthConfig) error {
	_, err := n.images.PullImage(ctx, &cri.PullImageRequest{Image: &cri.ImageSpec{Image: image}, Auth: auth})
	return err
}

// A pod is a sandbox with one container.
type pod struct {
	n         *node
	ip        string
	container string
	log       string
}

// run runs the image with the arguments, of which none stands for its own.
func (n *node) run(t *testing.T, image string, mutate func(*cri.ContainerConfig)) *pod {
	t.Helper()
	ctx, logs := t.Context(), t.TempDir()
	name := strings.ToLower(strings.NewReplacer("/", "-", "_", "-", "#", "-").Replace(t.Name()))
	sandbox := &cri.PodSandboxConfig{
		Metadata: &cri.PodSandboxMetadata{Name: name, Uid: name, Namespace: "pull"}, LogDirectory: logs,
		Linux: &cri.LinuxPodSandboxConfig{CgroupParent: cgroup, Sysctls: map[string]string{"net.ipv4.ip_unprivileged_port_start": "0"}},
	}
	s, err := n.runtime.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: sandbox})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(ctx)
		_, stopped := n.runtime.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: s.PodSandboxId})
		_, removed := n.runtime.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: s.PodSandboxId})
		if err := errors.Join(stopped, removed); err != nil {
			t.Error(err)
		}
	})
	status, err := n.runtime.PodSandboxStatus(ctx, &cri.PodSandboxStatusRequest{PodSandboxId: s.PodSandboxId})
	if err != nil {
		t.Fatal(err)
	}
	c := &cri.ContainerConfig{Metadata: &cri.ContainerMetadata{Name: "c"}, Image: &cri.ImageSpec{Image: image}, LogPath: "log"}
	if mutate != nil {
		mutate(c)
	}
	made, err := n.runtime.CreateContainer(ctx, &cri.CreateContainerRequest{PodSandboxId: s.PodSandboxId, Config: c, SandboxConfig: sandbox})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.runtime.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: made.ContainerId}); err != nil {
		t.Fatal(err)
	}
	return &pod{n: n, ip: status.Status.Network.GetIp(), container: made.ContainerId, log: filepath.Join(logs, "log")}
}

// shell runs a line in the container and is what it prints.
func (p *pod) shell(t *testing.T, line string) string {
	t.Helper()
	r, err := p.n.runtime.ExecSync(t.Context(), &cri.ExecSyncRequest{ContainerId: p.container, Cmd: []string{"sh", "-c", line}, Timeout: 20})
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	if r.ExitCode != 0 {
		t.Errorf("%s: exit status %d: %s%s", line, r.ExitCode, r.Stdout, r.Stderr)
	}
	return string(r.Stdout) + string(r.Stderr)
}

// until waits for something to be so.
func until(t *testing.T, what string, so func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(30 * time.Second); ; {
		if so() {
			return
		}
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("%s: not so after 30 s", what)
		}
	}
}

func (p *pod) says(t *testing.T, want string) {
	t.Helper()
	until(t, "its log has "+want, func() bool {
		text, err := os.ReadFile(p.log)
		return err == nil && bytes.Contains(text, []byte(want))
	})
}

func (p *pod) serves(t *testing.T, url, want string) {
	t.Helper()
	client := &http.Client{Timeout: 5 * time.Second}
	until(t, url+" has "+want, func() bool {
		r, err := client.Get("http://" + p.ip + url)
		if err != nil {
			return false
		}
		text, err := io.ReadAll(r.Body)
		return errors.Join(err, r.Body.Close()) == nil && strings.Contains(string(text), want)
	})
}

func (p *pod) ends(t *testing.T, code int32) {
	t.Helper()
	until(t, "the container has ended", func() bool {
		s, err := p.n.runtime.ContainerStatus(t.Context(), &cri.ContainerStatusRequest{ContainerId: p.container})
		if err != nil || s.Status.State != cri.ContainerState_CONTAINER_EXITED {
			return false
		}
		if s.Status.ExitCode != code {
			t.Errorf("it ended with %d, %s", s.Status.ExitCode, s.Status.Message)
		}
		return true
	})
}

func arguments(command, args []string) func(*cri.ContainerConfig) {
	return func(c *cri.ContainerConfig) { c.Command, c.Args = command, args }
}

const suite = "registry.k8s.io/e2e-test-images/"

func TestPull(t *testing.T) {
	n := start(t)
	if len(n.names) == 0 {
		t.Fatal("no image is made")
	}
	password := &cri.AuthConfig{Username: "user", Password: "password"}
	for _, name := range n.names {
		if strings.HasPrefix(name, "gcr.io/") {
			continue
		}
		if err := n.pull(t.Context(), name, nil); err != nil {
			t.Errorf("pull %s: %v", name, err)
		}
	}
	t.Run("private", func(t *testing.T) {
		const private = "gcr.io/k8s-authenticated-test/agnhost:2.6"
		if err := n.pull(t.Context(), private, nil); err == nil {
			t.Error("without a password it is pulled")
		}
		if err := n.pull(t.Context(), private, &cri.AuthConfig{Username: "user", Password: "wrong"}); err == nil {
			t.Error("with a wrong password it is pulled")
		}
		if err := n.pull(t.Context(), private, password); err != nil {
			t.Errorf("with the password: %v", err)
		}
	})
	t.Run("unknown", func(t *testing.T) {
		for _, name := range []string{"invalid.registry.k8s.io/invalid/alpine:3.1", suite + "agnhost:no-such-tag"} {
			began := time.Now()
			if err := n.pull(t.Context(), name, nil); err == nil {
				t.Errorf("%s is pulled", name)
			} else {
				t.Logf("after %s: %v", time.Since(began).Round(time.Millisecond), err)
			}
		}
	})
	for name, try := range tries {
		t.Run(name, func(t *testing.T) { try(t, n) })
	}
}

// What is tried of each image is what specs need of it.
var tries = map[string]func(t *testing.T, n *node){
	"agnhost": func(t *testing.T, n *node) {
		p := n.run(t, suite+"agnhost:2.63.0", nil)
		p.says(t, "Paused")
		for line, want := range map[string]string{
			"dig -v 2>&1": "DiG", "curl --version": "curl", "nc -h 2>&1 || true": "OpenBSD", "ss -V": "ss utility", "ip -V": "ip utility",
			"bash -c 'echo $BASH'": "bash", "iperf -v || true": "iperf", "getent hosts localhost": "127.0.0.1", "nsenter --version": "util-linux",
			"id user-defined-in-image": "uid=1000(user-defined-in-image) gid=1000(user-defined-in-image) groups=1000(user-defined-in-image),50000(group-defined-in-image)",
			"/agnhost-2 --version":     "2.63", "ls -ld /tmp /uploads": "drwxrwxrwt", "wget --help 2>&1": "Usage", "cat /var/registry/pause/manifests/testing": "sha256:", "cat /localhost.crt": "BEGIN CERTIFICATE",
		} {
			if got := p.shell(t, line); !strings.Contains(got, want) {
				t.Errorf("%s: %q", line, got)
			}
		}
	},
	"netexec": func(t *testing.T, n *node) {
		p := n.run(t, suite+"agnhost:2.55", arguments(nil, []string{"netexec", "--http-port=8080"}))
		p.serves(t, ":8080/hostname", "")
		p.serves(t, ":8080/shell?cmd=hostname", "output")
	},
	"fake registry": func(t *testing.T, n *node) {
		p := n.run(t, suite+"agnhost:2.63.0", func(c *cri.ContainerConfig) {
			c.Args = []string{"fake-registry-server"}
			c.Linux = &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{RunAsUser: &cri.Int64Value{Value: 5123}}}
		})
		p.serves(t, ":5000/v2/pause/manifests/testing", "application/vnd.oci.image.manifest.v1+json")
	},
	"busybox": func(t *testing.T, n *node) {
		p := n.run(t, suite+"busybox:1.37.0-1", func(c *cri.ContainerConfig) {
			c.Command = []string{"/bin/sh", "-c", "env; id; ls -l /bin/sh /usr/bin/env; date +%s; exit 7"}
			c.Envs = []*cri.KeyValue{{Key: "data-1", Value: []byte("kept")}}
		})
		p.ends(t, 7)
		p.says(t, "data-1=kept")
		p.says(t, "uid=0(root) gid=0(root)")
	},
	"glibc-dns-testing": func(t *testing.T, n *node) {
		p := n.run(t, suite+"glibc-dns-testing:2.0.0", arguments([]string{"sleep", "1000"}, nil))
		if got := p.shell(t, "dig -v 2>&1; getent hosts localhost; for i in `seq 1 3`; do echo n$i; done"); !strings.Contains(got, "DiG") || !strings.Contains(got, "n3") {
			t.Error(got)
		}
	},
	"kitten": func(t *testing.T, n *node) {
		p := n.run(t, suite+"kitten:1.8", nil)
		p.serves(t, ":80/data.json", "kitten.jpg")
		if got := p.shell(t, "cat /etc/os-release"); !strings.Contains(got, "Alpine Linux") {
			t.Error(got)
		}
	},
	"nautilus": func(t *testing.T, n *node) {
		n.run(t, suite+"nautilus:1.8", nil).serves(t, ":80/data.json", "nautilus.jpg")
	},
	"nginx": func(t *testing.T, n *node) {
		p := n.run(t, suite+"nginx:1.15-4", nil)
		p.serves(t, ":80/index.html", "Welcome to nginx!")
		p.shell(t, "mv -v /usr/share/nginx/html/index.html /tmp/")
		p.serves(t, ":80/index.html", "404")
	},
	"nginx as nobody": func(t *testing.T, n *node) {
		n.run(t, suite+"nginx:1.27-0", func(c *cri.ContainerConfig) {
			c.Linux = &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{RunAsUser: &cri.Int64Value{Value: 1000}, RunAsGroup: &cri.Int64Value{Value: 1000}}}
		}).serves(t, ":80/", "Welcome to nginx!")
	},
	"nonewprivs": func(t *testing.T, n *node) {
		for noNew, want := range map[bool]string{false: "Effective uid: 0", true: "Effective uid: 1000"} {
			t.Run(want, func(t *testing.T) {
				p := n.run(t, suite+"nonewprivs:1.4", func(c *cri.ContainerConfig) {
					c.Linux = &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{RunAsUser: &cri.Int64Value{Value: 1000}, NoNewPrivs: noNew}}
				})
				p.ends(t, 0)
				p.says(t, want)
			})
		}
	},
	"nonroot": func(t *testing.T, n *node) {
		p := n.run(t, suite+"nonroot:1.5", arguments([]string{"id", "-u"}, nil))
		p.ends(t, 0)
		p.says(t, "1234")
	},
	"resource-consumer": func(t *testing.T, n *node) {
		p := n.run(t, suite+"resource-consumer:1.14", nil)
		p.shell(t, "stress --version; test -x /consume-cpu")
		p.serves(t, ":8080/", "")
	},
	"etcd": func(t *testing.T, n *node) {
		p := n.run(t, "registry.k8s.io/etcd:3.6.8-0", arguments([]string{"/usr/local/bin/etcd", "--listen-client-urls", "http://0.0.0.0:2379", "--advertise-client-urls", "http://127.0.0.1:2379"}, nil))
		p.serves(t, ":2379/health", `"health":"true"`)
	},
	"sample-apiserver": func(t *testing.T, n *node) {
		p := n.run(t, suite+"sample-apiserver:1.29.2", arguments(nil, []string{"--help"}))
		p.ends(t, 0)
		p.says(t, "--etcd-servers")
	},
}
