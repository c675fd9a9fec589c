package cronjob

import (
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // so that zones are known on a machine without them

	"github.com/robfig/cron/v3"
	batchv1 "k8s.io/api/batch/v1"
)

const (
	// late is how long after its time a job is made, so that a clock that
	// is a little behind does not miss it.
	late = 100 * time.Millisecond
	// many is from how many missed times on something must be wrong.
	many = 100
)

// spelled is the schedule of c as the parser has it, with its time zone.
func spelled(c *batchv1.CronJob) string {
	if c.Spec.TimeZone == nil || strings.Contains(c.Spec.Schedule, "TZ") {
		return c.Spec.Schedule
	}
	return fmt.Sprintf("TZ=%s %s", *c.Spec.TimeZone, c.Spec.Schedule)
}

// parse reads a schedule. The parser panics on some.
func parse(schedule string) (s cron.Schedule, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("invalid schedule format: %v", p)
		}
	}()
	return cron.ParseStandard(schedule)
}

// A past is what a schedule says of the time until now.
type past struct {
	from   time.Time // where it begins
	last   time.Time // when a job should have been made last; zero for never
	missed int64     // how many times, roughly, where it is more than once
}

// past looks back to the last job, the creation of the cron job or the change
// of its schedule, and no farther than deadline, where there is one.
func (r *run) past(s cron.Schedule, deadline *int64) (past, error) {
	p := past{from: r.cron.CreationTimestamp.Time}
	if t := r.cron.Status.LastScheduleTime; t != nil {
		p.from = t.Time
	}
	if r.next.since.After(p.from) {
		p.from = r.next.since
	}
	if deadline != nil {
		if t := r.now.Add(-time.Duration(*deadline) * time.Second); t.After(p.from) {
			p.from = t
		}
	}
	first := s.Next(p.from)
	second := s.Next(first)
	switch {
	case r.now.Before(first):
		return p, nil
	case r.now.Before(second):
		p.last = first
		return p, nil
	}
	step := int64(second.Sub(first).Round(time.Second).Seconds())
	if step < 1 { // as of the 31st of February
		return p, fmt.Errorf("time difference between two schedules is less than 1 second")
	}
	// There may be years of them: it goes on from near the end, one step
	// earlier than it would be if all steps were the same.
	p.missed = int64(r.now.Sub(first).Seconds())/step + 1
	near := first.Add(time.Duration((p.missed-2)*step) * time.Second)
	for t := s.Next(near); !t.IsZero() && !t.After(r.now); t = s.Next(t) {
		p.last = t
	}
	return p, nil
}

// wait is how long it is until the schedule's next time.
func (r *run) wait(s cron.Schedule) time.Duration {
	p, err := r.past(s, nil)
	base := r.now
	switch {
	case err != nil:
	case !p.last.IsZero():
		base = p.last
	case p.missed == 0:
		base = p.from
	}
	return s.Next(base).Add(late).Sub(r.now)
}
