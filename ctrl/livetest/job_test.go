//go:build integration

package livetest

import (
	"context"
	"fmt"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// jobOf is a job of pods that run once each.
func jobOf(completions, parallelism int32) *batchv1.Job {
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: "sum"},
		Spec: batchv1.JobSpec{
			Completions: &completions, Parallelism: &parallelism, BackoffLimit: new(int32(0)),
			Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
				RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "c", Image: "i"}},
			}},
		},
	}
}

// end lets the running pods of a namespace end with an exit code.
func end(ctx context.Context, client kubernetes.Interface, ns string, code int32) error {
	pods, err := client.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, p := range pods.Items {
		if p.Status.Phase != corev1.PodRunning || p.DeletionTimestamp != nil {
			continue
		}
		p.Status.Phase = corev1.PodSucceeded
		if code != 0 {
			p.Status.Phase = corev1.PodFailed
		}
		p.Status.Conditions = nil
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", Image: "i", State: corev1.ContainerState{
			Terminated: &corev1.ContainerStateTerminated{ExitCode: code, FinishedAt: metav1.Now()},
		}}}
		if _, err := client.CoreV1().Pods(ns).UpdateStatus(ctx, &p, metav1.UpdateOptions{}); err != nil {
			return err
		}
	}
	return nil
}

// has reports what is missing from a job that has come to its end.
func has(ctx context.Context, client kubernetes.Interface, ns string, last batchv1.JobConditionType, succeeded, failed int32) error {
	j, err := client.BatchV1().Jobs(ns).Get(ctx, "sum", metav1.GetOptions{})
	if err != nil {
		return err
	}
	for _, c := range j.Status.Conditions {
		if c.Type == last && c.Status == corev1.ConditionTrue && j.Status.Succeeded == succeeded && j.Status.Failed == failed {
			return nil
		}
	}
	return fmt.Errorf("status %+v", j.Status)
}

// free reports a pod that something still holds.
func free(ctx context.Context, client kubernetes.Interface, ns string) error {
	pods, err := client.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, p := range pods.Items {
		if len(p.Finalizers) > 0 {
			return fmt.Errorf("pod %s is held by %v", p.Name, p.Finalizers)
		}
	}
	return nil
}

// TestJob runs one job to its success, indexed, and one to its failure, and
// deletes one while its pods run.
func TestJob(t *testing.T) {
	client, _ := start(t)
	newHollow(t, client, "live-job", nil)
	t.Run("complete", func(t *testing.T) {
		ns, ctx := space(t, client), t.Context()
		j := jobOf(3, 2)
		j.Spec.CompletionMode = new(batchv1.IndexedCompletion)
		if _, err := client.BatchV1().Jobs(ns).Create(ctx, j, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, 10*time.Second, "complete", func() error {
			if err := end(ctx, client, ns, 0); err != nil {
				return err
			}
			return has(ctx, client, ns, batchv1.JobComplete, 3, 0)
		})
		eventually(t, 5*time.Second, "pods let go", func() error { return free(ctx, client, ns) })
		if j, err := client.BatchV1().Jobs(ns).Get(ctx, "sum", metav1.GetOptions{}); err != nil || j.Status.CompletedIndexes != "0-2" || j.Status.CompletionTime == nil {
			t.Errorf("%+v, %v", j.Status, err)
		}
	})
	t.Run("failed", func(t *testing.T) {
		ns, ctx := space(t, client), t.Context()
		if _, err := client.BatchV1().Jobs(ns).Create(ctx, jobOf(3, 2), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, 10*time.Second, "two pods", func() error {
			j, err := client.BatchV1().Jobs(ns).Get(ctx, "sum", metav1.GetOptions{})
			if err == nil && (j.Status.Active != 2 || j.Status.Ready == nil || *j.Status.Ready != 2) {
				err = fmt.Errorf("status %+v", j.Status)
			}
			return err
		})
		eventually(t, 5*time.Second, "end", func() error { return end(ctx, client, ns, 3) })
		eventually(t, 10*time.Second, "failed", func() error { return has(ctx, client, ns, batchv1.JobFailed, 0, 2) })
		eventually(t, 5*time.Second, "pods let go", func() error { return free(ctx, client, ns) })
	})
	t.Run("deleted", func(t *testing.T) {
		ns, ctx := space(t, client), t.Context()
		if _, err := client.BatchV1().Jobs(ns).Create(ctx, jobOf(2, 2), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		pods := func(want int) func() error {
			return func() error {
				pods, err := client.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{})
				if err == nil && len(pods.Items) != want {
					err = fmt.Errorf("%d pods", len(pods.Items))
				}
				return err
			}
		}
		eventually(t, 5*time.Second, "pods", pods(2))
		if err := client.BatchV1().Jobs(ns).Delete(ctx, "sum", metav1.DeleteOptions{PropagationPolicy: new(metav1.DeletePropagationBackground)}); err != nil {
			t.Fatal(err)
		}
		eventually(t, 15*time.Second, "no pods", pods(0))
	})
}
