package image

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-dev/knarr/kubelet"
)

// registry has one image, for those who know the password.
type registry struct {
	have     map[string]bool
	password string
	pulls    []string
}

func (r *registry) PullImage(_ context.Context, im *runtimeapi.ImageSpec, a *runtimeapi.AuthConfig, _ *runtimeapi.PodSandboxConfig) (string, error) {
	r.pulls = append(r.pulls, a.GetUsername())
	if a.GetPassword() != r.password {
		return "", errors.New("unauthorized")
	}
	if strings.Contains(im.Image, "gone") {
		return "", errors.New("RegistryUnavailable: it is down")
	}
	r.have[im.Image] = true
	return "id-" + im.Image, nil
}

func (r *registry) ImageStatus(_ context.Context, im *runtimeapi.ImageSpec) (*runtimeapi.Image, error) {
	name := strings.TrimPrefix(im.Image, "id-")
	if !r.have[name] {
		return nil, nil
	}
	return &runtimeapi.Image{Id: "id-" + name, Size: 123}, nil
}

type secrets map[string]*corev1.Secret

func (s secrets) Secret(_ context.Context, _ types.UID, _, name string) (*corev1.Secret, error) {
	if s[name] == nil {
		return nil, apierrors.NewNotFound(corev1.Resource("secret"), name)
	}
	return s[name], nil
}

func secret(name, config string) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns", UID: types.UID("uid-" + name)},
		Type:       corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(config)},
	}
}

type bench struct {
	*Keeper

	reg    *registry
	events []string
}

func keeper(t *testing.T) *bench {
	b := &bench{reg: &registry{have: map[string]bool{}}}
	b.Keeper = &Keeper{
		Puller: b.reg, Dir: t.TempDir(),
		Secrets: secrets{"good": secret("good", `{"auths":{"r.example":{"username":"me","password":"pass"}}}`), "bad": secret("bad", `{"auths":{"r.example/team":{"auth":"bWU6bm8="}}}`)},
		Tell:    func(_ *corev1.Pod, _, _, reason, message string) { b.events = append(b.events, reason+": "+message) },
	}
	return b
}

func (b *bench) ensure(ctx context.Context, pod types.UID, name string, policy corev1.PullPolicy, pullSecrets ...string) string {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: pod, Namespace: "ns"}}
	for _, s := range pullSecrets {
		p.Spec.ImagePullSecrets = append(p.Spec.ImagePullSecrets, corev1.LocalObjectReference{Name: s})
	}
	c := &kubelet.Container{Pod: p, Spec: &corev1.Container{Name: "c", Image: name}, Sandbox: &kubelet.Sandbox{}}
	im, err := b.Ensure(ctx, c, name, policy)
	if f, ok := errors.AsType[*kubelet.Failure](err); ok {
		return fmt.Sprintf("%s after %v", f.Reason, f.After.Truncate(time.Second))
	} else if err != nil {
		return err.Error()
	}
	return im.Id
}

func TestPolicies(t *testing.T) {
	b := keeper(t)
	b.reg.have["knarr.local/own:latest"] = true
	ctx := t.Context()
	for _, tt := range []struct {
		name   string
		policy corev1.PullPolicy
		want   string
		pulls  int
	}{
		{"r.example/a", corev1.PullNever, "ErrImageNeverPull after 0s", 0},
		{"r.example/a", corev1.PullIfNotPresent, "id-r.example/a:latest", 1},
		{"r.example/a:latest", corev1.PullIfNotPresent, "id-r.example/a:latest", 1},
		{"r.example/a", corev1.PullNever, "id-r.example/a:latest", 1},
		{"r.example/a", corev1.PullAlways, "id-r.example/a:latest", 2},
		{"knarr.local/own", corev1.PullAlways, "id-knarr.local/own:latest", 2},
		{"Not A Name", corev1.PullAlways, "InvalidImageName after 0s", 2},
		{"r.example/gone:1", corev1.PullAlways, "RegistryUnavailable after 3s", 3},
	} {
		if got := b.ensure(ctx, "p", tt.name, tt.policy); got != tt.want || len(b.reg.pulls) != tt.pulls {
			t.Errorf("%s %s: %s after %d pulls, want %s after %d", tt.name, tt.policy, got, len(b.reg.pulls), tt.want, tt.pulls)
		}
	}
	all := strings.Join(b.events, "\n")
	for _, want := range []string{
		`ErrImageNeverPull: Container image "r.example/a" is not present with pull policy of Never`, `Pulling: Pulling image "r.example/a"`,
		`Pulled: Successfully pulled image "r.example/a" in `, `Image size: 123 bytes.`, `Pulled: Container image "r.example/a" already present on machine`,
		`InspectFailed: Failed to apply default image tag "Not A Name": couldn't parse image name "Not A Name": `, `Failed: Error: RegistryUnavailable`,
	} {
		if !strings.Contains(all, want) {
			t.Errorf("no event %q in\n%s", want, all)
		}
	}
}

// TestFailureIsNoPull pulls in vain what somebody then brings by other means.
func TestFailureIsNoPull(t *testing.T) {
	b := keeper(t)
	if got := b.ensure(t.Context(), "p", "r.example/gone:1", corev1.PullAlways); !strings.HasPrefix(got, "RegistryUnavailable") {
		t.Fatal(got)
	}
	b.reg.have["r.example/gone:1"] = true
	if got := b.ensure(t.Context(), "q", "r.example/gone:1", corev1.PullIfNotPresent); got != "id-r.example/gone:1" {
		t.Error(got)
	}
}

// TestPullsAtOnce has two pods pull one image.
func TestPullsAtOnce(t *testing.T) {
	b := keeper(t)
	for range 2 {
		if err := b.intend("r.example/a:latest"); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.settled("r.example/a:latest", true); err != nil {
		t.Fatal(err)
	}
	if b.mayUse("r.example/a:latest", "id", nil) {
		t.Error("one is still under way")
	}
	if err := b.settled("r.example/a:latest", true); err != nil {
		t.Fatal(err)
	}
	if !b.mayUse("r.example/a:latest", "id", nil) {
		t.Error("none is under way")
	}
}

func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := keeper(t)
		b.reg.password = "pass"
		try := func(pod types.UID) string { return b.ensure(t.Context(), pod, "r.example/a", corev1.PullAlways) }
		for _, step := range []struct {
			wait time.Duration
			want string
		}{
			{0, "ErrImagePull after 3s"},
			{3, "ImagePullBackOff after 7s"},
			{7, "ErrImagePull after 3s"},
			{3, "ImagePullBackOff after 17s"},
			{17, "ErrImagePull after 3s"},
			{40, "ErrImagePull after 3s"},
			{80, "ErrImagePull after 3s"},
			{160, "ErrImagePull after 3s"},
			{100, "ImagePullBackOff after 200s"},
			{200, "ErrImagePull after 3s"},
			{2000, "ErrImagePull after 3s"},
			{3, "ImagePullBackOff after 7s"},
		} {
			time.Sleep(step.wait * time.Second)
			if got := strings.ReplaceAll(try("p"), "3m20s", "200s"); got != step.want {
				t.Fatalf("%v later: %s, want %s", step.wait, got, step.want)
			}
		}
		if got := try("q"); got != "ErrImagePull after 3s" {
			t.Errorf("another pod: %s", got)
		}
		if err := b.Hook().Cleanup(t.Context(), "p"); err != nil || len(b.failed) != 1 {
			t.Errorf("%v, still knows %v", err, b.failed)
		}
	})
}

func TestCredentials(t *testing.T) {
	b := keeper(t)
	b.reg.password = "pass"
	ctx := t.Context()
	if got := b.ensure(ctx, "p", "r.example/team/a", corev1.PullIfNotPresent, "missing", "good", "bad"); got != "id-r.example/team/a:latest" {
		t.Fatal(got, b.events)
	}
	if !slices.Equal(b.reg.pulls, []string{"me", "me"}) { // first the one for the longer path, which is wrong
		t.Error(b.reg.pulls)
	}
	if !strings.Contains(strings.Join(b.events, ""), "FailedToRetrieveImagePullSecret") {
		t.Error(b.events)
	}
	// Whoever has no credential for it may not use what is there.
	if got := b.ensure(ctx, "q", "r.example/team/a", corev1.PullIfNotPresent); !strings.HasPrefix(got, "ErrImagePull") {
		t.Error(got)
	}
	if got := b.ensure(ctx, "q", "r.example/team/a", corev1.PullNever); !strings.HasPrefix(got, "ErrImageNeverPull") {
		t.Error(got)
	}
	if got := b.ensure(ctx, "r", "r.example/team/a", corev1.PullNever, "good"); got != "id-r.example/team/a:latest" {
		t.Error(got)
	}
	// What was not pulled by this kubelet is for all.
	b.reg.have["r.example/own:latest"] = true
	if got := b.ensure(ctx, "q", "r.example/own", corev1.PullNever); got != "id-r.example/own:latest" {
		t.Error(got)
	}
	if err := b.intend("r.example/own:latest"); err != nil {
		t.Fatal(err)
	}
	if got := b.ensure(ctx, "q", "r.example/own", corev1.PullNever); !strings.HasPrefix(got, "ErrImageNeverPull") {
		t.Errorf("one whose pull was not seen to its end: %s", got)
	}
}

func TestMatches(t *testing.T) {
	for _, tt := range []struct {
		at, image string
		want      bool
	}{
		{"r.example", "r.example/a:1", true},
		{"*.example", "r.example/a", true},
		{"*.example", "x.r.example/a", false},
		{"r.example/team", "r.example/team/a", true},
		{"r.example/team", "r.example/other", false},
		{"r.example:5000", "r.example/a", false},
		{"r.example:5000", "r.example:5000/a", true},
		{"reg*.example", "reg1.example/a", true},
	} {
		if got := matches(tt.at, tt.image); got != tt.want {
			t.Errorf("%s for %s: %v", tt.at, tt.image, got)
		}
	}
	for key, want := range map[string]string{"https://index.docker.io/v1/": "index.docker.io", "http://r.example/v2/team": "r.example/team", "r.example": "r.example"} {
		if got := place(key); got != want {
			t.Errorf("%s: %s, want %s", key, got, want)
		}
	}
	for image, want := range map[string]bool{"ubuntu": true, "library/ubuntu": true, "docker.io/a/b": true, "r.example/a": false, "localhost:5000/a": false} {
		if got := ofDockerHub(image); got != want {
			t.Errorf("%s: %v", image, got)
		}
	}
}

func TestCollect(t *testing.T) {
	now := time.Now()
	image := func(id string, size uint64) *runtimeapi.Image { return &runtimeapi.Image{Id: id, Size: size} }
	have := []*runtimeapi.Image{image("new", 10), image("old", 10), image("older", 10), image("used", 10), {Id: "pinned", Size: 10, Pinned: true}}
	used := map[string]time.Time{"new": now, "old": now.Add(-time.Hour), "older": now.Add(-2 * time.Hour), "used": now.Add(-3 * time.Hour), "pinned": now.Add(-4 * time.Hour)}
	for _, tt := range []struct {
		need   uint64
		policy Policy
		want   []string
	}{
		{0, Policy{MinAge: time.Minute}, nil},
		{5, Policy{MinAge: time.Minute}, []string{"older"}},
		{100, Policy{MinAge: time.Minute}, []string{"older", "old"}},
		{0, Policy{MaxAge: 90 * time.Minute}, []string{"older"}},
	} {
		if got := Collect(have, used, map[string]bool{"used": true}, tt.need, tt.policy, now); !slices.Equal(got, tt.want) {
			t.Errorf("%d, %+v: %v, want %v", tt.need, tt.policy, got, tt.want)
		}
	}
}
