package logs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// A line is one line of a log file: a whole line of what the container
// printed, its end included, or a part of one without an end.
type line struct {
	stamp  []byte
	stream []byte
	whole  bool
	text   []byte
}

var errFormat = errors.New("not a line of a CRI log")

// parse takes apart `2016-10-06T00:17:09.669794202Z stdout F text`. Of several
// tags, separated by colons, the first tells whether the line is whole.
func parse(raw []byte) (line, error) {
	stamp, rest, ok1 := bytes.Cut(raw, []byte(" "))
	stream, rest, ok2 := bytes.Cut(rest, []byte(" "))
	tags, text, ok3 := bytes.Cut(rest, []byte(" "))
	if !ok1 || !ok2 || !ok3 || string(stream) != "stdout" && string(stream) != "stderr" {
		return line{}, errFormat
	}
	tag, _, _ := bytes.Cut(tags, []byte(":"))
	l := line{stamp: stamp, stream: stream, whole: string(tag) != "P", text: text}
	if !l.whole {
		l.text = bytes.TrimSuffix(text, []byte("\n"))
	}
	return l, nil
}

// errEnough ends a read that has printed as much as was asked for.
var errEnough = errors.New("byte limit reached")

// stampOut has a fixed width, unlike what runtimes write.
const stampOut = "2006-01-02T15:04:05.000000000Z07:00 "

// An output writes the lines that were asked for in the form asked for.
type output struct {
	w          io.Writer
	stream     string
	timestamps bool
	since      time.Time
	left       *int64 // bytes still allowed, nil for any number

	buf    []byte
	inside bool // a line begun has not ended
}

// line prints one line, and returns errEnough once the limit is reached.
func (o *output) line(l line) error {
	if o.stream != "" && o.stream != string(l.stream) {
		return nil
	}
	begin := !o.inside
	if o.timestamps && begin || !o.since.IsZero() {
		at, err := time.Parse(time.RFC3339Nano, string(l.stamp))
		if err != nil {
			return fmt.Errorf("timestamp %q: %w", l.stamp, err)
		}
		if at.Before(o.since) {
			return nil
		}
		if o.timestamps && begin {
			o.buf = at.AppendFormat(o.buf, stampOut)
		}
	}
	o.inside = !l.whole
	o.buf = append(o.buf, l.text...)
	if o.left != nil && int64(len(o.buf)) >= *o.left {
		o.buf = o.buf[:*o.left]
		return errors.Join(errEnough, o.flush())
	}
	if len(o.buf) >= flushAt {
		return o.write()
	}
	return nil
}

// flushAt is how many bytes are gathered before they are written, so that a
// log of short lines does not cost a write for each.
const flushAt = 32 << 10

func (o *output) write() error {
	n, err := o.w.Write(o.buf)
	if o.left != nil {
		*o.left -= int64(n)
	}
	o.buf = o.buf[:0]
	return err
}

// flush hands all that was printed to the client.
func (o *output) flush() error {
	if len(o.buf) > 0 {
		if err := o.write(); err != nil {
			return err
		}
	}
	if f, ok := o.w.(http.Flusher); ok {
		f.Flush()
	}
	return nil
}
