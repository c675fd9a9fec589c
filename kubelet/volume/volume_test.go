package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"sigs.k8s.io/yaml"

	"github.com/knarr-dev/knarr/kubelet"
)

type objects struct {
	maps    map[string]*corev1.ConfigMap
	secrets map[string]*corev1.Secret
}

func (o *objects) ConfigMap(_ context.Context, _ types.UID, _, name string) (*corev1.ConfigMap, error) {
	if o.maps[name] == nil {
		return nil, apierrors.NewNotFound(corev1.Resource("configmap"), name)
	}
	return o.maps[name], nil
}

func (o *objects) Secret(_ context.Context, _ types.UID, _, name string) (*corev1.Secret, error) {
	if o.secrets[name] == nil {
		return nil, apierrors.NewNotFound(corev1.Resource("secret"), name)
	}
	return o.secrets[name], nil
}

// A bench has a node with a ConfigMap, a Secret and a service account.
type bench struct {
	*Mounter
	*objects

	t      *testing.T
	events []string
	tokens int
	life   time.Duration
	fail   error
}

func newBench(t *testing.T) *bench {
	if os.Getuid() != 0 {
		t.Skip("needs root to mount")
	}
	b := &bench{t: t, life: time.Hour, objects: &objects{
		maps:    map[string]*corev1.ConfigMap{"cm": {Data: map[string]string{"a": "1", "b": "2"}, BinaryData: map[string][]byte{"bin": {0, 1}}}},
		secrets: map[string]*corev1.Secret{"s": {Data: map[string][]byte{"key": []byte("hidden")}}},
	}}
	b.Mounter = &Mounter{
		Root: t.TempDir(), Objects: b.objects,
		Allocatable: func() corev1.ResourceList { return corev1.ResourceList{"memory": resource.MustParse("64Mi")} },
		Token: func(_ context.Context, ns, sa string, r *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
			b.tokens++
			r.Status.Token = fmt.Sprintf("%s/%s %v %d #%d", ns, sa, r.Spec.Audiences, *r.Spec.ExpirationSeconds, b.tokens)
			r.Status.ExpirationTimestamp = metav1.NewTime(time.Now().Add(b.life))
			return r, b.fail
		},
		Tell: func(_ *corev1.Pod, _, _, reason, message string) { b.events = append(b.events, reason+": "+message) },
	}
	t.Cleanup(func() {
		if err := b.cleanup(context.Background(), "u"); err != nil {
			t.Error(err)
		}
	})
	return b
}

// pod makes a pod whose container mounts all of its volumes.
func pod(t *testing.T, spec string) *corev1.Pod {
	t.Helper()
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "u", Labels: map[string]string{"l": "v"}}}
	if err := yaml.UnmarshalStrict([]byte(spec), &p.Spec); err != nil {
		t.Fatal(err)
	}
	if len(p.Spec.Containers) == 0 {
		p.Spec.Containers = []corev1.Container{{Name: "c"}}
	}
	for _, v := range p.Spec.Volumes {
		if c := &p.Spec.Containers[0]; !slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == v.Name }) {
			c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: v.Name, MountPath: "/" + v.Name})
		}
	}
	return p
}

func (b *bench) make(p *corev1.Pod) error { return b.prepare(b.t.Context(), &kubelet.Sandbox{Pod: p}) }

func (b *bench) path(name string) string {
	b.t.Helper()
	path, err := b.Path("u", name)
	if err != nil {
		b.t.Fatal(err)
	}
	return path
}

// list is a volume's files as containers see them, with modes and text.
func (b *bench) list(name string) (lines []string) {
	b.t.Helper()
	dir := b.path(name)
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, path)
		if err != nil || strings.HasPrefix(rel, "..") {
			if e != nil && e.IsDir() {
				return fs.SkipDir
			}
			return err
		}
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if info.IsDir() && e.Type()&fs.ModeSymlink != 0 {
			return filepath.WalkDir(path+"/", func(inner string, e fs.DirEntry, err error) error {
				if err == nil && !e.IsDir() {
					lines = append(lines, b.line(inner, rel+strings.TrimPrefix(inner, path)))
				}
				return err
			})
		}
		if !info.IsDir() {
			lines = append(lines, b.line(path, rel))
		}
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
	slices.Sort(lines)
	return lines
}

func (b *bench) line(path, name string) string {
	b.t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		b.t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		b.t.Fatal(err)
	}
	return fmt.Sprintf("%s %o %d %q", strings.ReplaceAll(name, "//", "/"), info.Mode().Perm(), group(info), text)
}

func (b *bench) want(name string, want ...string) {
	b.t.Helper()
	if got := b.list(name); !slices.Equal(got, want) {
		b.t.Errorf("%s has\n%s\nwant\n%s", name, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestObjects(t *testing.T) {
	b := newBench(t)
	p := pod(t, `
volumes:
- {name: all, configMap: {name: cm}}
- {name: some, configMap: {name: cm, defaultMode: 0400, items: [{key: a, path: dir/x, mode: 0440}, {key: b, path: z}]}}
- {name: secret, secret: {secretName: s, defaultMode: 0600}}
- {name: none, secret: {secretName: none, optional: true}}
- name: mixed
  projected:
    sources:
    - {configMap: {name: cm, items: [{key: a, path: a}, {key: missing, path: m}], optional: true}}
    - {secret: {name: s}}
    - {downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}, {path: mem, resourceFieldRef: {containerName: c, resource: limits.memory, divisor: 1Mi}}]}}
    - {serviceAccountToken: {path: token, audience: me, expirationSeconds: 600}}
`)
	p.Spec.ServiceAccountName = "sa"
	if err := b.make(p); err != nil {
		t.Fatal(err)
	}
	b.want("all", `a 644 0 "1"`, `b 644 0 "2"`, `bin 644 0 "\x00\x01"`)
	b.want("some", `dir/x 440 0 "1"`, `z 400 0 "2"`)
	b.want("secret", `key 600 0 "hidden"`)
	b.want("none")
	b.want("mixed", `a 644 0 "1"`, `key 644 0 "hidden"`, `labels 644 0 "l=\"v\""`, `mem 644 0 "64"`, `token 644 0 "ns/sa [me] 600 #1"`)
	for name, memory := range map[string]bool{"all": false, "secret": true, "mixed": true} {
		if mounted, err := isMount(b.path(name)); err != nil || mounted != memory {
			t.Errorf("%s in memory: %v, %v", name, mounted, err)
		}
	}

	before, err := os.Readlink(filepath.Join(b.path("all"), dataLink))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.make(p); err != nil {
		t.Fatal(err)
	}
	if again, _ := os.Readlink(filepath.Join(b.path("all"), dataLink)); again != before {
		t.Error("written again though nothing had changed")
	}
	b.maps["cm"] = &corev1.ConfigMap{Data: map[string]string{"b": "two", "c": "3"}}
	b.secrets["none"] = &corev1.Secret{Data: map[string][]byte{"k": []byte("now")}}
	p.Labels["l"] = "w"
	if err := b.make(p); err == nil { // some refers to a key that is gone
		t.Error("a key that is missing is no error")
	}
	b.want("all", `b 644 0 "two"`, `c 644 0 "3"`)
	b.want("some", `dir/x 440 0 "1"`, `z 400 0 "2"`)
	b.want("none", `k 644 0 "now"`)
	b.want("mixed", `key 644 0 "hidden"`, `labels 644 0 "l=\"w\""`, `mem 644 0 "64"`, `token 644 0 "ns/sa [me] 600 #1"`)
	if entries, _ := os.ReadDir(b.path("all")); len(entries) != 4 { // b, c, the link, and what it points to
		t.Errorf("%v", entries)
	}
	if last := b.events[len(b.events)-1]; last != `FailedMount: MountVolume.SetUp failed for volume "some" : references non-existent config key: a` {
		t.Error(b.events)
	}
}

func TestGroupAndUser(t *testing.T) {
	b := newBench(t)
	p := pod(t, `
securityContext: {fsGroup: 1234}
volumes:
- {name: cm, configMap: {name: cm, defaultMode: 0440, items: [{key: a, path: a}, {key: b, path: b, mode: 0400}]}}
- {name: empty, emptyDir: {}}
- {name: token, projected: {sources: [{serviceAccountToken: {path: t}}]}}
`)
	if err := b.make(p); err != nil {
		t.Fatal(err)
	}
	b.want("cm", `a 440 1234 "1"`, `b 440 1234 "2"`)
	b.want("token", `t 640 1234 "ns/ [] 3600 #1"`)
	info, err := os.Stat(b.path("empty"))
	if err != nil || info.Mode() != fs.ModeDir|fs.ModeSetgid|0o777 || group(info) != 1234 {
		t.Errorf("%v %d, %v", info.Mode(), group(info), err)
	}
	if err := b.cleanup(t.Context(), "u"); err != nil {
		t.Fatal(err)
	}
	p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: new(int64(99))}
	if err := b.make(p); err != nil {
		t.Fatal(err)
	}
	b.want("token", `t 600 0 "ns/ [] 3600 #2"`)
	p.Spec.Containers = append(p.Spec.Containers, corev1.Container{SecurityContext: &corev1.SecurityContext{RunAsUser: new(int64(98))}})
	if oneUser(p) != nil {
		t.Error("two users are one")
	}
}

func TestEmptyDir(t *testing.T) {
	b := newBench(t)
	p := pod(t, "volumes: [{name: disk, emptyDir: {}}, {name: memory, emptyDir: {medium: Memory, sizeLimit: 1Mi}}, {name: unused, emptyDir: {}}]")
	p.Spec.Containers[0].VolumeMounts = p.Spec.Containers[0].VolumeMounts[:2]
	if err := b.make(p); err != nil {
		t.Fatal(err)
	}
	for name, memory := range map[string]bool{"disk": false, "memory": true} {
		info, err := os.Stat(b.path(name))
		mounted, merr := isMount(b.path(name))
		if err != nil || merr != nil || info.Mode()|fs.ModeSticky != fs.ModeDir|fs.ModeSticky|0o777 || mounted != memory {
			t.Errorf("%s: %v, in memory %v, %v, %v", name, info.Mode(), mounted, err, merr)
		}
		if err := os.WriteFile(filepath.Join(b.path(name), "f"), []byte("kept"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(b.path("memory"), "big"), make([]byte, 2<<20), 0o644); err == nil {
		t.Error("more fits than the limit says")
	}
	if _, err := b.Path("u", "unused"); err == nil {
		t.Error("a volume that nobody uses was made")
	}
	b.pods = nil // another kubelet
	if err := b.make(p); err != nil {
		t.Fatal(err)
	}
	b.want("disk", `f 644 0 "kept"`)
	dir := b.path("disk")
	for range 2 {
		if err := b.cleanup(t.Context(), "u"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Error("still there")
	}
}

func TestHostPath(t *testing.T) {
	dir := t.TempDir()
	file, sock := filepath.Join(dir, "file"), filepath.Join(dir, "sock")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	for _, tt := range []struct {
		path string
		kind corev1.HostPathType
		ok   bool
	}{
		{"/none", "", true},
		{"/none", corev1.HostPathDirectory, false},
		{dir, corev1.HostPathDirectory, true},
		{file, corev1.HostPathDirectory, false},
		{dir + "/made", corev1.HostPathDirectoryOrCreate, true},
		{dir + "/made", corev1.HostPathDirectory, true},
		{file, corev1.HostPathDirectoryOrCreate, false},
		{dir + "/new", corev1.HostPathFileOrCreate, true},
		{dir + "/new", corev1.HostPathFile, true},
		{dir, corev1.HostPathFile, false},
		{sock, corev1.HostPathSocket, true},
		{file, corev1.HostPathSocket, false},
		{"/dev/null", corev1.HostPathCharDev, true},
		{"/dev/null", corev1.HostPathBlockDev, false},
	} {
		if err := checkHostPath(&corev1.HostPathVolumeSource{Path: tt.path, Type: &tt.kind}); (err == nil) != tt.ok {
			t.Errorf("%s as %q: %v", tt.path, tt.kind, err)
		}
	}
}

// mountInto mounts a volume into a container and returns what the runtime is told.
func (b *bench) mountInto(p *corev1.Pod, env map[string]string, vm corev1.VolumeMount) (*runtimeapi.Mount, error) {
	b.t.Helper()
	c := &kubelet.Container{Pod: p, Spec: &corev1.Container{Name: "c", VolumeMounts: []corev1.VolumeMount{vm}}, Config: &runtimeapi.ContainerConfig{}}
	for k, v := range env {
		c.Config.Envs = append(c.Config.Envs, &runtimeapi.KeyValue{Key: k, Value: []byte(v)})
	}
	if err := b.mount(b.t.Context(), c); err != nil {
		return nil, err
	}
	return c.Config.Mounts[0], nil
}

func TestSubPath(t *testing.T) {
	b := newBench(t)
	p := pod(t, "volumes: [{name: v, emptyDir: {}}, {name: cm, configMap: {name: cm}}]")
	if err := b.make(p); err != nil {
		t.Fatal(err)
	}
	dir := b.path("v")
	if err := errors.Join(os.Symlink("/etc", filepath.Join(dir, "out")), os.Symlink("../../../..", filepath.Join(dir, "up")), os.WriteFile(filepath.Join(dir, "f"), []byte("x"), 0o644), os.Symlink("f", filepath.Join(dir, "in"))); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		vm   corev1.VolumeMount
		want string // what is there, or in quotes the error
	}{
		{corev1.VolumeMount{Name: "v", SubPath: "f"}, "x"},
		{corev1.VolumeMount{Name: "v", SubPath: "in"}, "x"},
		{corev1.VolumeMount{Name: "cm", SubPath: "a"}, "1"},
		{corev1.VolumeMount{Name: "v", SubPath: "new/dir"}, "directory"},
		{corev1.VolumeMount{Name: "v", SubPathExpr: "x-$(NAME)"}, "directory"},
		{corev1.VolumeMount{Name: "v", SubPathExpr: "$(NONE)"}, `"missing value for "NONE""`},
		{corev1.VolumeMount{Name: "v", SubPathExpr: "$(SLASH)"}, "\"error SubPath `/abs` must not be an absolute path\""},
		{corev1.VolumeMount{Name: "v", SubPath: "a/../b"}, "\"unable to provision SubPath `a/../b`: must not contain '..'\""},
		{corev1.VolumeMount{Name: "v", SubPath: "out"}, `"failed to prepare subPath for volumeMount "v" of container "c""`},
		{corev1.VolumeMount{Name: "v", SubPath: "up/etc"}, `"failed to prepare subPath for volumeMount "v" of container "c""`},
	} {
		m, err := b.mountInto(p, map[string]string{"NAME": "pod", "SLASH": "/abs"}, tt.vm)
		got := ""
		if err != nil {
			got = `"` + err.Error() + `"`
		} else if text, err := os.ReadFile(m.HostPath); err == nil {
			got = string(text)
		} else if info, err := os.Stat(m.HostPath); err == nil && info.Mode() == fs.ModeDir|0o777 {
			got = "directory"
		}
		if got != tt.want {
			t.Errorf("%s%s: %s, want %s", tt.vm.SubPath, tt.vm.SubPathExpr, got, tt.want)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "x-pod")); err != nil {
		t.Error(err)
	}
}

func TestMounts(t *testing.T) {
	b := newBench(t)
	p := pod(t, "volumes: [{name: v, emptyDir: {}}, {name: s, secret: {secretName: s}}, {name: h, hostPath: {path: /etc}}]")
	if err := b.make(p); err != nil {
		t.Fatal(err)
	}
	both, down := corev1.MountPropagationBidirectional, corev1.MountPropagationHostToContainer
	recursive := corev1.RecursiveReadOnlyEnabled
	for _, tt := range []struct {
		vm   corev1.VolumeMount
		want string
	}{
		{corev1.VolumeMount{Name: "v", MountPath: "a"}, "/a rw PROPAGATION_PRIVATE"},
		{corev1.VolumeMount{Name: "v", MountPath: "/a", ReadOnly: true, RecursiveReadOnly: &recursive}, "/a ro recursive PROPAGATION_PRIVATE"},
		{corev1.VolumeMount{Name: "s", MountPath: "/a"}, "/a ro PROPAGATION_PRIVATE"},
		{corev1.VolumeMount{Name: "h", MountPath: "/a", MountPropagation: &both}, "/a rw PROPAGATION_BIDIRECTIONAL"},
		{corev1.VolumeMount{Name: "h", MountPath: "/a", MountPropagation: &down}, "/a rw PROPAGATION_HOST_TO_CONTAINER"},
	} {
		m, err := b.mountInto(p, nil, tt.vm)
		if err != nil {
			t.Fatal(err)
		}
		got := m.ContainerPath + map[bool]string{true: " ro", false: " rw"}[m.Readonly]
		if m.RecursiveReadOnly {
			got += " recursive"
		}
		if got += " " + m.Propagation.String(); got != tt.want {
			t.Errorf("%+v: %s, want %s", tt.vm, got, tt.want)
		}
	}
}

func TestTokenIsRenewed(t *testing.T) {
	b := newBench(t)
	refreshed := make(chan types.UID, 1)
	b.Refresh = func(uid types.UID) { refreshed <- uid }
	p := pod(t, "volumes: [{name: v, projected: {sources: [{serviceAccountToken: {path: t}}]}}]")
	b.life = time.Millisecond // so that it is to be renewed at once
	if err := b.make(p); err != nil {
		t.Fatal(err)
	}
	select {
	case uid := <-refreshed:
		if uid != "u" {
			t.Error(uid)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the pod is not prepared again")
	}
	b.life = time.Hour
	if err := b.make(p); err != nil {
		t.Fatal(err)
	}
	b.want("v", `t 644 0 "ns/ [] 3600 #2"`)
	// One that is to be renewed but cannot is used while it is good.
	s := b.pods["u"].tokens["v/t"]
	s.renew = time.Now()
	b.pods["u"].tokens["v/t"] = s
	b.fail = errors.New("no answer")
	if err := b.make(p); err != nil || b.tokens != 3 {
		t.Errorf("%v after %d requests", err, b.tokens)
	}
	s.expires = time.Now()
	b.pods["u"].tokens["v/t"] = s
	if err := b.make(p); err == nil {
		t.Error("an expired token is used")
	}
	now := time.Now()
	r := &authenticationv1.TokenRequest{Status: authenticationv1.TokenRequestStatus{ExpirationTimestamp: metav1.NewTime(now.Add(100 * time.Hour))}}
	if d := renewal(r, now).renew.Sub(now); d > maxAge || d < maxAge-maxJitter {
		t.Errorf("a long-lived token is renewed after %v", d)
	}
}

// TestSideBySide makes fifty volumes at once, several times at once.
func TestSideBySide(t *testing.T) {
	b := newBench(t)
	spec := "volumes:\n"
	for i := range 50 {
		spec += fmt.Sprintf("- {name: v%d, configMap: {name: cm}}\n", i)
	}
	p := pod(t, spec)
	var wait sync.WaitGroup
	for range 3 {
		wait.Go(func() {
			if err := b.make(p); err != nil {
				t.Error(err)
			}
		})
		wait.Wait()
	}
	for i := range 50 {
		b.want(fmt.Sprintf("v%d", i), `a 644 0 "1"`, `b 644 0 "2"`, `bin 644 0 "\x00\x01"`)
	}
}

func TestUnknown(t *testing.T) {
	b := newBench(t)
	err := b.make(pod(t, "volumes: [{name: v, nfs: {server: x, path: /}}]"))
	if f, ok := errors.AsType[*kubelet.Failure](err); !ok || !f.Told || !strings.Contains(f.Message, `volume "v" : this kind of volume is not supported`) {
		t.Error(err)
	}
	for _, bad := range []string{"../x", "/x", "a/../../x", "..x", ""} {
		if put(map[string]file{}, bad, file{}) == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
