package registrytest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/knarr-dev/knarr/registry"
)

var (
	update  = flag.Bool("update", false, "rewrite the responses of the examples")
	against = flag.String("against", "", "play the examples against the server at this URL, which knows each user by a token that is the user's name")
)

// Play runs the examples that match glob, each against a server of its own.
//
// A file is a script of requests, each with the response that it has. A
// request is as in HTTP, headers and all, but for the version; a body is YAML
// where nothing else is said. What the example wants besides stands in lines
// before it:
//
//	@user name group…        who asks, instead of the administrator
//	@show path…              what of the body to show, instead of all of it
//	@headers name…           which headers to show
//	@keep name=path          what to write ${name} for from now on
//	@repeat text number      to write that many times for ${repeat}
//	@until code              to ask again until that is the code, for what takes a moment
//
// A response is its code, then the warnings and headers, then the body, as
// YAML where it is JSON, and a failure by reason and message, whatever was to
// be shown. What differs each time is left out: times, UIDs, revisions and
// managed fields, unless they are asked for.
func Play(t *testing.T, glob string, opts ...Option) {
	files, err := filepath.Glob(glob)
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples in %s: %v", glob, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			script, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			t.Parallel()
			p := &play{t: t, as: other, vars: map[string]string{}}
			if *against == "" {
				p.as = Run(t, opts...).As
			}
			p.run(script)
			if *update {
				if err := os.WriteFile(file, txtar.Format(script), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// A play is one example that is being run.
type play struct {
	t    *testing.T
	as   func(registry.User) http.RoundTripper
	vars map[string]string
}

// other is how a user reaches the server that the examples are played against.
func other(user registry.User) http.RoundTripper {
	cfg := &rest.Config{Host: *against, BearerToken: user.Name, TLSClientConfig: rest.TLSClientConfig{Insecure: true}}
	if user.Name == registry.Anonymous {
		cfg.BearerToken = ""
	}
	rt, err := rest.TransportFor(cfg)
	if err != nil {
		panic(err) // there is nothing in it that could be wrong
	}
	return rt
}

func (p *play) run(script *txtar.Archive) {
	last := ""
	for i, f := range script.Files {
		switch f.Name {
		case "request":
			last = p.ask(string(f.Data))
		case "response":
			if *update {
				script.Files[i].Data = []byte(last)
			} else if diff := cmp.Diff(string(f.Data), last); diff != "" {
				p.t.Errorf("response %d differs (-want +got):\n%s", i/2+1, diff)
			}
		default:
			p.t.Fatalf("section %q is not known", f.Name)
		}
	}
}

// A wish is what an example says before a request.
type wish struct {
	user    registry.User
	show    []string
	headers []string
	keep    map[string]string // paths by name
	until   string
}

func (p *play) wish(lines []string) wish {
	w := wish{user: Admin, keep: map[string]string{}}
	for _, line := range lines {
		words := strings.Fields(line)
		switch words[0] {
		case "@user":
			w.user = registry.User{Name: words[1], Groups: words[2:]}
		case "@show":
			w.show = words[1:]
		case "@headers":
			w.headers = words[1:]
		case "@keep":
			name, path, _ := strings.Cut(words[1], "=")
			w.keep[name] = path
		case "@repeat":
			var n int
			if _, err := fmt.Sscan(words[2], &n); err != nil {
				p.t.Fatal(err)
			}
			p.vars["repeat"] = strings.Repeat(words[1], n)
		case "@until":
			w.until = words[1]
		default:
			p.t.Fatalf("%q is not known", line)
		}
	}
	return w
}

// ask sends a request and describes the response.
func (p *play) ask(text string) string {
	var first []string
	for strings.HasPrefix(text, "@") {
		line, rest, _ := strings.Cut(text, "\n")
		first, text = append(first, line), rest
	}
	w := p.wish(first)
	resp := p.answer(w, text)
	defer func() { _ = resp.Body.Close() }() // it was read
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	out := &strings.Builder{}
	fmt.Fprintln(out, resp.StatusCode)
	for _, name := range append([]string{"Warning"}, w.headers...) {
		for _, v := range resp.Header.Values(name) {
			fmt.Fprintf(out, "%s: %s\n", name, v)
		}
	}
	if isYAML := resp.Header.Get("Content-Type") == "application/yaml"; isYAML && w.show != nil {
		if body, err = yaml.YAMLToJSON(body); err != nil {
			p.t.Fatal(err)
		}
	}
	p.body(out, w, body)
	return p.masked(out.String())
}

// answer sends a request until it has the answer that is wished for.
func (p *play) answer(w wish, text string) *http.Response {
	end, tick := time.After(patience), time.NewTicker(10*time.Millisecond)
	defer tick.Stop()
	for {
		resp, err := p.as(w.user).RoundTrip(p.request(text))
		if err != nil {
			p.t.Fatal(err)
		}
		if w.until == "" || w.until == strconv.Itoa(resp.StatusCode) {
			return resp
		}
		_ = resp.Body.Close() // another will do
		select {
		case <-tick.C:
		case <-end:
			p.t.Fatalf("%s: the code is %d and not %s", text, resp.StatusCode, w.until)
		}
	}
}

// request reads a request as an example has it.
func (p *play) request(text string) *http.Request {
	for name, value := range p.vars {
		text = strings.ReplaceAll(text, "${"+name+"}", value)
	}
	head, body, _ := strings.Cut(text, "\n\n")
	lines := strings.Split(strings.TrimSpace(head), "\n")
	lines[0] += " HTTP/1.1"
	req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(strings.Join(lines, "\r\n") + "\r\n\r\n")))
	if err != nil {
		p.t.Fatalf("%s: %v", head, err)
	}
	req.URL.Scheme, req.URL.Host, req.RequestURI = "http", "knarr", ""
	if *against != "" {
		if req.URL, err = url.Parse(*against + req.URL.String()[len("http://knarr"):]); err != nil {
			p.t.Fatal(err)
		}
	}
	if body != "" {
		req.Body, req.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
		if _, said := req.Header["Content-Type"]; !said {
			req.Header.Set("Content-Type", "application/yaml")
		}
	}
	return req.WithContext(p.t.Context())
}

func (p *play) body(out *strings.Builder, w wish, body []byte) {
	var status metav1.Status
	if json.Unmarshal(body, &status) == nil && status.Kind == "Status" && status.Status == metav1.StatusFailure {
		fail(out, &status)
		return
	}
	// A watch answers with one object after another.
	d := json.NewDecoder(bytes.NewReader(body))
	var shown []string
	for {
		var obj any
		err := d.Decode(&obj)
		if err == io.EOF && len(shown) > 0 {
			break
		}
		m, is := obj.(map[string]any)
		if err != nil || !is {
			out.Write(body)
			if len(body) > 0 && body[len(body)-1] != '\n' {
				out.WriteByte('\n')
			}
			return
		}
		for name, path := range w.keep {
			p.vars[name] = fmt.Sprint(at(m, path))
		}
		shown = append(shown, p.object(m, w))
	}
	out.WriteString(strings.Join(shown, "---\n"))
}

// fail describes a failure.
func fail(out *strings.Builder, s *metav1.Status) {
	fmt.Fprintf(out, "%s: %s\n", s.Reason, s.Message)
	if s.Details == nil {
		return
	}
	if d := s.Details; d.Name+d.Kind+d.Group != "" {
		fmt.Fprintf(out, "of %q %q %q\n", d.Group, d.Kind, d.Name)
	}
	for _, c := range s.Details.Causes {
		fmt.Fprintf(out, "cause %s %s: %s\n", c.Type, c.Field, c.Message)
	}
	if s.Details.RetryAfterSeconds > 0 {
		fmt.Fprintf(out, "again after %ds\n", s.Details.RetryAfterSeconds)
	}
}

// object is what is to be shown of an object, as YAML.
func (p *play) object(m map[string]any, w wish) string {
	if len(w.show) == 0 {
		strip(m)
	} else {
		part := map[string]any{}
		for _, path := range w.show {
			if v := at(m, path); v != nil {
				part[path] = v
			}
		}
		m = part
	}
	text, err := yaml.Marshal(m)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(text)
}

// at is what is at a path of an object, of all the elements of a list where
// the path says *.
func at(v any, path string) any {
	name, rest, more := strings.Cut(path, ".")
	if name == "*" {
		list, _ := v.([]any)
		out := []any{}
		for _, e := range list {
			if more {
				e = at(e, rest)
			}
			out = append(out, e)
		}
		return out
	}
	m, _ := v.(map[string]any)
	if v = m[name]; !more || v == nil {
		return v
	}
	return at(v, rest)
}

// strip takes from an object, and all in it, what differs each time.
func strip(v any) {
	switch v := v.(type) {
	case map[string]any:
		for _, name := range []string{"managedFields", "uid", "resourceVersion", "creationTimestamp"} {
			delete(v, name)
		}
		for _, e := range v {
			strip(e)
		}
	case []any:
		for _, e := range v {
			strip(e)
		}
	}
}

var (
	uuids = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)
	times = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`)
)

// masked is a text without what differs each time: what is kept goes by its
// name.
func (p *play) masked(text string) string {
	names := make([]string, 0, len(p.vars))
	for name := range p.vars {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return len(p.vars[b]) - len(p.vars[a]) })
	for _, name := range names {
		if p.vars[name] != "" && strings.Contains(text, p.vars[name]) {
			word := regexp.MustCompile(`(^|\W)` + regexp.QuoteMeta(p.vars[name]) + `($|\W)`)
			text = word.ReplaceAllString(text, "${1}$${"+name+"}${2}")
		}
	}
	return times.ReplaceAllString(uuids.ReplaceAllString(text, "UID"), "TIME")
}
