package parts

import (
	"context"

	"github.com/spf13/pflag"

	"github.com/knarr-dev/knarr/sched/all"
	"github.com/knarr-dev/knarr/sched/loop"
)

// A Scheduler is the options of the scheduler.
type Scheduler struct {
	Kubeconfig string
	Elect      bool
	Names      []string
	Metrics    *loop.Metrics
}

// Flags adds the flags that set the options.
func (o *Scheduler) Flags(fs *pflag.FlagSet) {
	fs.StringVar(&o.Kubeconfig, "kubeconfig", "", "where the API server is, and who this is")
	fs.BoolVar(&o.Elect, "leader-elect", true, "act only while holding the lease kube-system/kube-scheduler")
	fs.StringSliceVar(&o.Names, "scheduler-name", []string{"default-scheduler"}, "schedulerNames of the pods to schedule")
}

// Run schedules pods until ctx ends.
func (o *Scheduler) Run(ctx context.Context, door *Door) error {
	return ended(loop.Run(ctx, loop.Config{
		Client: door.Client(""), Informers: door.Informers, Plugins: all.Plugins, Names: o.Names, Elect: o.Elect, Metrics: o.Metrics,
	}))
}

// Main runs the scheduler as a process of its own.
func (o *Scheduler) Main(ctx context.Context) error {
	door, err := FromKubeconfig(o.Kubeconfig, "kube-scheduler")
	if err != nil {
		return err
	}
	return o.Run(ctx, door)
}
