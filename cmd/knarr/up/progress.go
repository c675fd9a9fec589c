package up

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// A step is one line of what the process that starts a cluster tells the one
// that waits for it.
type step struct {
	Name  string        `json:"name,omitempty"`
	Took  time.Duration `json:"took,omitempty"`
	Error string        `json:"error,omitempty"`
	Done  bool          `json:"done,omitempty"` // that was the last
}

// A teller tells of steps.
type teller interface{ tell(step) }

// pipe tells another process.
type pipe struct{ out *json.Encoder }

func newPipe(w io.Writer) pipe { return pipe{json.NewEncoder(w)} }

func (p pipe) tell(s step) {
	_ = p.out.Encode(s) // who waited may have gone, and the start goes on
}

// screen tells a person. An error is told by who ends because of it.
type screen struct{ out io.Writer }

func (p screen) tell(s step) {
	if s.Name != "" {
		fmt.Fprintf(p.out, " ✓ %-40s %6.2fs\n", s.Name, s.Took.Seconds())
	}
}

// relay shows the steps that another process tells of until it is done. An
// error is the other process's.
func relay(in io.Reader, out teller) error {
	for d := json.NewDecoder(in); ; {
		var s step
		err := d.Decode(&s)
		if errors.Is(err, io.EOF) {
			return errors.New("it ended before it was ready")
		}
		if err != nil {
			return err
		}
		out.tell(s)
		if s.Error != "" {
			return errors.New(s.Error)
		}
		if s.Done {
			return nil
		}
	}
}

// steps measures steps one behind the other.
type steps struct {
	to   teller
	last time.Time
}

// did tells that a step is done.
func (s *steps) did(name string) {
	now := time.Now()
	s.to.tell(step{Name: name, Took: now.Sub(s.last)})
	s.last = now
}
