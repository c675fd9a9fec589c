package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// A Lease keeps two engines from acting at the same time. Its zero value
// with an Identity is upstream's, so that either can follow the other.
type Lease struct {
	Identity        string // of this process, unlike all others
	Namespace, Name string // kube-system/kube-controller-manager where empty

	Duration, Deadline, Retry time.Duration // 15 s, 10 s and 2 s where 0
}

// errLost is what hold returns where another engine took over.
var errLost = errors.New("lease lost")

// hold waits for the lease and runs lead for as long as it has it.
func (l Lease) hold(ctx context.Context, client kubernetes.Interface, lead func(context.Context) error) error {
	l.fill()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	asked, done := ctx, make(chan error, 1)
	lock := &heldLock{LeaseLock: resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: l.Namespace, Name: l.Name},
		Client:     client.CoordinationV1(),
		LockConfig: resourcelock.ResourceLockConfig{Identity: l.Identity},
	}}
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Name:          l.Name,
		Lock:          lock,
		LeaseDuration: l.Duration, RenewDeadline: l.Deadline, RetryPeriod: l.Retry,
		ReleaseOnCancel: true, // the next engine need not wait for it to run out
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(ctx context.Context) {
				done <- lead(ctx)
				stop()
			},
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		return fmt.Errorf("lease %s/%s: %w", l.Namespace, l.Name, err)
	}
	elector.Run(ctx)
	if !lock.held {
		return nil
	}
	err = <-done
	if err == nil && asked.Err() == nil {
		return errLost
	}
	return err
}

// A heldLock remembers whether it was ever held: the elector tells of that at
// once only in this way.
type heldLock struct {
	resourcelock.LeaseLock

	held bool
}

// RecordEvent is called when the lease is taken, and when it is given back.
func (h *heldLock) RecordEvent(string) { h.held = true }

func (l *Lease) fill() {
	set := func(s *string, to string) {
		if *s == "" {
			*s = to
		}
	}
	span := func(d *time.Duration, to time.Duration) {
		if *d == 0 {
			*d = to
		}
	}
	set(&l.Namespace, "kube-system")
	set(&l.Name, "kube-controller-manager")
	span(&l.Duration, 15*time.Second)
	span(&l.Deadline, 10*time.Second)
	span(&l.Retry, 2*time.Second)
}
