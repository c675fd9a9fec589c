package loop

import (
	"hash/maphash"
	"sync"

	"k8s.io/apimachinery/pkg/types"
)

// calls does what takes time, many things at once, but those for one pod in
// their order: that it is unschedulable must not be said after it was bound.
type calls struct {
	lanes []chan func()
	seed  maphash.Seed
	done  sync.WaitGroup
}

const (
	lanes     = 64  // calls at once; below what a server takes on one connection
	laneDepth = 256 // calls that may wait behind one, before the loop waits with them
)

func newCalls() *calls {
	c := &calls{seed: maphash.MakeSeed()}
	for range lanes {
		lane := make(chan func(), laneDepth)
		c.lanes = append(c.lanes, lane)
		c.done.Go(func() {
			for call := range lane {
				call()
			}
		})
	}
	return c
}

// do has call done after all others for that pod.
func (c *calls) do(pod types.UID, call func()) {
	c.lanes[maphash.String(c.seed, string(pod))%lanes] <- call
}

// close waits for all calls, which are the last.
func (c *calls) close() {
	for _, lane := range c.lanes {
		close(lane)
	}
	c.done.Wait()
}

// An inbox holds what other goroutines have for the loop to do.
type inbox struct {
	mu   sync.Mutex
	jobs []func()
	more chan struct{} // holds one where there are jobs
}

func newInbox() *inbox { return &inbox{more: make(chan struct{}, 1)} }

func (b *inbox) put(job func()) {
	b.mu.Lock()
	b.jobs = append(b.jobs, job)
	b.mu.Unlock()
	select {
	case b.more <- struct{}{}:
	default:
	}
}

// take returns all jobs in the order in which they came.
func (b *inbox) take() []func() {
	b.mu.Lock()
	defer b.mu.Unlock()
	jobs := b.jobs
	b.jobs = nil
	return jobs
}
