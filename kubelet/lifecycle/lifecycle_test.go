package lifecycle

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-dev/knarr/kubelet"
)

func runner(told *[]string) *Runner {
	return &Runner{
		Exec: func(_ context.Context, _ string, cmd []string, _ time.Duration) ([]byte, int32, error) {
			switch cmd[0] {
			case "fail":
				return []byte("out"), 3, nil
			case "break":
				return nil, 0, errors.New("broken")
			}
			return nil, 0, nil
		},
		Client: http.DefaultClient,
		Tell:   func(_ *corev1.Pod, _, _, reason, _ string) { *told = append(*told, reason) },
	}
}

func container(post, pre *corev1.LifecycleHandler) *kubelet.Container {
	return &kubelet.Container{Pod: &corev1.Pod{}, Spec: &corev1.Container{Lifecycle: &corev1.Lifecycle{PostStart: post, PreStop: pre}}}
}

func command(c string) *corev1.LifecycleHandler {
	return &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{c}}}
}

func TestExec(t *testing.T) {
	var told []string
	h := runner(&told).Hook()
	if err := h.AfterStart(t.Context(), container(command("ok"), nil)); err != nil {
		t.Error(err)
	}
	if err := h.AfterStart(t.Context(), container(command("fail"), nil)); err == nil || !strings.Contains(err.Error(), "exited with 3") {
		t.Error(err)
	}
	if err := h.BeforeKill(t.Context(), container(nil, command("break"))); err == nil || !strings.Contains(err.Error(), "broken") {
		t.Error(err)
	}
	if err := h.BeforeKill(t.Context(), container(command("fail"), nil)); err != nil {
		t.Error("the wrong handler was run")
	}
	if strings.Join(told, " ") != "FailedPostStartHook FailedPreStopHook" {
		t.Error(told)
	}
}

func TestSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		h := runner(&told).Hook()
		sleep := func(s int64) *corev1.LifecycleHandler {
			return &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: s}}
		}
		began := time.Now()
		for _, s := range []int64{0, 5} {
			if err := h.BeforeKill(t.Context(), container(nil, sleep(s))); err != nil {
				t.Error(err)
			}
		}
		if d := time.Since(began); d != 5*time.Second {
			t.Error(d)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := h.BeforeKill(ctx, container(nil, sleep(60))); !errors.Is(err, context.DeadlineExceeded) || len(told) != 0 {
			t.Error(err, told)
		}
	})
}

// TestPlainBehindHTTPS asks with encryption whom has none.
func TestPlainBehindHTTPS(t *testing.T) {
	asked := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		if r.Header.Get("Authorization") != "" {
			t.Error("sent in the clear what was meant to be secret")
		}
		w.WriteHeader(http.StatusTeapot)
	}))
	defer s.Close()
	var told []string
	r := runner(&told)
	r.Request = func(ctx context.Context, _ *corev1.HTTPGetAction, _ *corev1.Container, _, agent string) (*http.Request, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.Replace(s.URL, "http:", "https:", 1), http.NoBody)
		req.Header.Set("Authorization", "x")
		req.Header.Set("User-Agent", agent)
		return req, err
	}
	err := r.Hook().AfterStart(t.Context(), container(&corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{}}, nil))
	if err != nil || asked != 1 || len(told) != 1 || told[0] != "LifecycleHTTPFallback" {
		t.Error(err, asked, told)
	}
}
