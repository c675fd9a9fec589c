package run

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"

	"github.com/knarr-dev/knarr/kubelet/pod"
)

// rewriteWait is how long after a status could not be written that is tried again.
const rewriteWait = time.Second

// status works the pod's status out, shows it to the rest of the process, and
// has it written to the API where that has another.
func (w *worker) status(ctx context.Context) {
	s := &w.st
	now := pod.Status(*s)
	for _, h := range w.l.hooks {
		if h.Observe != nil {
			h.Observe(s.Pod, &now)
		}
	}
	w.crashes(now)
	s.Was = now
	w.show()
	s.Reported = equal(s.Pod.Status, now)
	if s.Reported || s.Gone || w.writing || time.Now().Before(w.rewrite) {
		return
	}
	w.writing, w.rewrite = true, time.Time{}
	had := s.Pod
	w.l.wait.Go(func() {
		p, err := w.l.write(ctx, had, now)
		w.post(func(w *worker) {
			w.writing = false
			switch {
			case err == nil:
				w.replace(p)
			case apierrors.IsNotFound(err):
				// The watch will tell; until then there is nothing to write to.
				w.rewrite = time.Now().Add(rewriteWait)
			default:
				if ctx.Err() == nil {
					slog.WarnContext(ctx, "write status", "obj", "Pod/"+w.name, "err", err)
				}
				w.rewrite = time.Now().Add(rewriteWait)
			}
		})
	})
}

// write patches a pod's status from what the API had to what it is.
func (l *loop) write(ctx context.Context, had *corev1.Pod, now corev1.PodStatus) (*corev1.Pod, error) {
	type object struct {
		Metadata metav1.ObjectMeta `json:"metadata"`
		Status   corev1.PodStatus  `json:"status"`
	}
	from, err := json.Marshal(object{Status: had.Status})
	if err != nil {
		return nil, fmt.Errorf("encode status: %w", err)
	}
	// With the uid the patch cannot hit another pod of the name.
	to, err := json.Marshal(object{Metadata: metav1.ObjectMeta{UID: had.UID}, Status: now})
	if err != nil {
		return nil, fmt.Errorf("encode status: %w", err)
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(from, to, corev1.Pod{})
	if err != nil {
		return nil, fmt.Errorf("patch status: %w", err)
	}
	p, err := l.client.CoreV1().Pods(had.Namespace).Patch(ctx, had.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil {
		return nil, err
	}
	p.ManagedFields = nil
	return p, nil
}

// equal tells whether two statuses say the same. The API may keep conditions
// in another order.
func equal(a, b corev1.PodStatus) bool {
	a.Conditions, b.Conditions = ordered(a.Conditions), ordered(b.Conditions)
	return equality.Semantic.DeepEqual(a, b)
}

func ordered(list []corev1.PodCondition) []corev1.PodCondition {
	return slices.SortedFunc(slices.Values(list), func(a, b corev1.PodCondition) int {
		if a.Type < b.Type {
			return -1
		}
		return 1
	})
}

// crashes tells of containers that have begun to wait between two crashes.
func (w *worker) crashes(now corev1.PodStatus) {
	waits := func(list []corev1.ContainerStatus, name string) bool {
		return slices.ContainsFunc(list, func(c corev1.ContainerStatus) bool {
			return c.Name == name && c.State.Waiting != nil && c.State.Waiting.Reason == "CrashLoopBackOff"
		})
	}
	was := slices.Concat(w.st.Was.ContainerStatuses, w.st.Was.InitContainerStatuses)
	for _, c := range slices.Concat(now.ContainerStatuses, now.InitContainerStatuses) {
		if waits([]corev1.ContainerStatus{c}, c.Name) && !waits(was, c.Name) {
			w.l.Tell(w.st.Pod, c.Name, corev1.EventTypeWarning, "BackOff",
				fmt.Sprintf("Back-off restarting failed container %s in pod %s", c.Name, pod.Name(w.st.Pod)))
		}
	}
}

// show lets the rest of the process see the pod.
func (w *worker) show() {
	k := known{pod: w.snapshot(), containers: map[string]instance{}}
	for _, box := range w.st.Sandboxes {
		if box.Ready && k.sandbox == "" {
			k.sandbox = box.ID
		}
	}
	for _, c := range w.st.Containers {
		if _, newer := k.containers[c.Name]; !newer {
			k.containers[c.Name] = instance{c.ID, c.Phase == pod.Running}
		}
	}
	w.l.Pods.put(w.uid, k)
}
