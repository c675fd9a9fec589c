package critest

import (
	"strconv"
	"strings"
	"time"
)

const (
	killed   = 137
	notFound = 127
)

// script runs a command to its end and returns its exit code. The words are:
//
//	sleep SECONDS|infinity   exit CODE       true   false   wait   echo ...
//	touch FILE   rm FILE     cat FILE        trap '' TERM   trap 'exit CODE' TERM
//	exits CODE CODE ...      with the code for the container's attempt, the last one for all later ones
//
// Without a trap SIGTERM does nothing, as for any first process of a container.
func (r *Runtime) script(c *container, argv []string, signal chan bool) int32 {
	text := strings.Join(argv, " ")
	if len(argv) > 2 && strings.HasSuffix(argv[0], "sh") && argv[1] == "-c" {
		text = argv[2]
	}
	for _, line := range split(text) {
		code, exit := r.word(c, strings.Fields(line), line, signal)
		if exit || code != 0 {
			return code
		}
	}
	return 0
}

// split cuts a text at ; and & that stand outside of quotes.
func split(text string) []string {
	quoted := false
	return strings.FieldsFunc(text, func(ch rune) bool {
		if ch == '\'' {
			quoted = !quoted
		}
		return !quoted && (ch == ';' || ch == '&')
	})
}

// word does one command. exit is whether it ends the script even with code 0.
func (r *Runtime) word(c *container, w []string, line string, signal chan bool) (code int32, exit bool) {
	if len(w) == 0 {
		return 0, false
	}
	arg := strings.Join(w[1:], " ")
	switch w[0] {
	case "sleep":
		return r.sleep(c, arg, signal)
	case "exit":
		return number(arg), true
	case "exits":
		return number(w[min(int(c.config.Metadata.Attempt)+1, len(w)-1)]), true
	case "trap":
		handler := strings.Split(line, "'")[1]
		r.mu.Lock()
		c.trap = &handler
		r.mu.Unlock()
	case "touch", "rm":
		r.mu.Lock()
		c.files[arg] = w[0] == "touch"
		r.mu.Unlock()
	case "cat":
		r.mu.Lock()
		defer r.mu.Unlock()
		if !c.files[arg] {
			return 1, true
		}
	case "false":
		return 1, true
	case "true", "wait", "echo":
	case "":
	default:
		return notFound, true
	}
	return 0, false
}

func (r *Runtime) sleep(c *container, arg string, signal chan bool) (code int32, exit bool) {
	var wake <-chan time.Time
	if arg != "infinity" {
		wake = time.After(time.Duration(number(arg)) * time.Second)
	}
	for {
		select {
		case <-wake:
			return 0, false
		case kill := <-signal:
			if kill {
				return killed, true
			}
		}
		r.mu.Lock()
		trap := c.trap
		r.mu.Unlock()
		if trap != nil {
			if code, ok := strings.CutPrefix(*trap, "exit "); ok {
				return number(code), true
			}
		}
	}
}

func number(s string) int32 {
	n, err := strconv.Atoi(s)
	if err != nil {
		return notFound
	}
	return int32(n)
}
