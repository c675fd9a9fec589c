//go:build integration

package livetest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// TestCronJob has a cron job make a job, note its end and clean up after it.
func TestCronJob(t *testing.T) {
	client, _ := start(t)
	newHollow(t, client, "live-cron", nil)
	ns, ctx := space(t, client), t.Context()
	crons := client.BatchV1().CronJobs(ns)
	change := func(patch string) {
		t.Helper()
		if _, err := crons.Patch(ctx, "tick", types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	// status waits for what holds of the cron job's, and of its jobs.
	status := func(what string, holds func(batchv1.CronJobStatus, []batchv1.Job) bool) {
		t.Helper()
		eventually(t, 10*time.Second, what, func() error {
			c, err := crons.Get(ctx, "tick", metav1.GetOptions{})
			if err != nil {
				return err
			}
			jobs, err := client.BatchV1().Jobs(ns).List(ctx, metav1.ListOptions{})
			if err == nil && !holds(c.Status, jobs.Items) {
				err = fmt.Errorf("status %+v, %d jobs", c.Status, len(jobs.Items))
			}
			return err
		})
	}
	_, err := crons.Create(ctx, &batchv1.CronJob{
		ObjectMeta: metav1.ObjectMeta{Name: "tick"},
		Spec: batchv1.CronJobSpec{
			Schedule: "@every 1s", TimeZone: new("Asia/Kathmandu"), ConcurrencyPolicy: batchv1.ForbidConcurrent,
			JobTemplate: batchv1.JobTemplateSpec{Spec: jobOf(1, 1).Spec},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	status("a job", func(s batchv1.CronJobStatus, jobs []batchv1.Job) bool {
		return len(jobs) == 1 && len(s.Active) == 1 && s.Active[0].UID == jobs[0].UID && s.LastScheduleTime != nil &&
			jobs[0].Name == fmt.Sprintf("tick-%d", s.LastScheduleTime.Unix()/60)
	})
	change(`{"spec":{"suspend":true}}`)
	status("its end", func(s batchv1.CronJobStatus, jobs []batchv1.Job) bool {
		if err := end(ctx, client, ns, 0); err != nil {
			t.Log(err)
		}
		return len(jobs) == 1 && len(s.Active) == 0 && s.LastSuccessfulTime != nil
	})
	change(`{"spec":{"successfulJobsHistoryLimit":0}}`)
	status("no jobs", func(_ batchv1.CronJobStatus, jobs []batchv1.Job) bool { return len(jobs) == 0 })
	eventually(t, 5*time.Second, "events", func() error {
		events, err := client.CoreV1().Events(ns).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.kind=CronJob"})
		if err != nil {
			return err
		}
		var reasons []string
		for _, e := range events.Items {
			reasons = append(reasons, e.Reason)
		}
		for _, want := range []string{"SuccessfulCreate", "SawCompletedJob", "SuccessfulDelete"} {
			if !slices.Contains(reasons, want) {
				return fmt.Errorf("events %v", reasons)
			}
		}
		return nil
	})
}
