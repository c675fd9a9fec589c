package stats

import (
	"io/fs"
	"strconv"
	"strings"
)

// The kernel's files, by their paths from the root without the first slash.
// What is missing reads as empty: kernels differ in what they have.

func text(files fs.FS, path string) string {
	data, err := fs.ReadFile(files, path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// unlimited is what limits read as where there is none.
const unlimited = ^uint64(0)

// number reads a file of one number, or of the word max.
func number(files fs.FS, path string) (n uint64, ok bool) {
	return parse(text(files, path))
}

func parse(s string) (n uint64, ok bool) {
	if s == "max" {
		return unlimited, true
	}
	n, err := strconv.ParseUint(s, 10, 64)
	return n, err == nil
}

// keyed reads a file of lines such as "user_usec 12" or "MemTotal: 12 kB".
// A unit of kB is worked out, so that all is in bytes.
func keyed(files fs.FS, path string) map[string]uint64 {
	m := map[string]uint64{}
	for line := range strings.Lines(text(files, path)) {
		key, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		value, unit, _ := strings.Cut(strings.TrimSpace(rest), " ")
		n, ok := parse(value)
		if !ok {
			continue
		}
		if unit == "kB" {
			n <<= 10
		}
		m[strings.TrimSuffix(key, ":")] = n
	}
	return m
}

func names(files fs.FS, dir string) (list []string) {
	entries, err := fs.ReadDir(files, dir)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// An iface is what has passed through one network interface.
type iface struct {
	name   string
	rx, tx traffic
}

type traffic struct{ bytes, packets, errors, dropped uint64 }

// interfaces reads a net/dev file without the loopback.
func interfaces(files fs.FS, path string) (list []iface) {
	for line := range strings.Lines(text(files, path)) {
		name, counts, ok := strings.Cut(line, ":")
		f := strings.Fields(counts)
		if name = strings.TrimSpace(name); !ok || len(f) < 12 || name == "lo" {
			continue
		}
		var n [12]uint64
		for i := range n {
			n[i], _ = parse(f[i])
		}
		list = append(list, iface{name, traffic{n[0], n[1], n[2], n[3]}, traffic{n[8], n[9], n[10], n[11]}})
	}
	return list
}

// A pressure is how much time was lost waiting for something.
type pressure struct {
	some, full stall
	known      bool
}

// A stall is in microseconds in all, and per cent of late.
type stall struct {
	total                uint64
	avg10, avg60, avg300 float64
}

// pressures reads lines such as "some avg10=0.00 avg60=0.00 avg300=0.00 total=0".
func pressures(files fs.FS, path string) (p pressure) {
	for line := range strings.Lines(text(files, path)) {
		f := strings.Fields(line)
		if len(f) < 5 {
			continue
		}
		var s stall
		for _, field := range f[1:] {
			key, value, _ := strings.Cut(field, "=")
			switch x, _ := strconv.ParseFloat(value, 64); key {
			case "avg10":
				s.avg10 = x
			case "avg60":
				s.avg60 = x
			case "avg300":
				s.avg300 = x
			case "total":
				s.total = uint64(x)
			}
		}
		p.known = true
		if f[0] == "full" {
			p.full = s
		} else {
			p.some = s
		}
	}
	return p
}
