package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// healthz adds the health checks to mux: all of them, and each by its name.
func (s *server) healthz(mux *http.ServeMux) *http.ServeMux {
	fine := func() error { return nil } // that there is an answer is the check
	checks := []struct {
		name string
		run  func() error
	}{{"ping", fine}, {"log", fine}, {"syncloop", s.SyncLoop}}
	serve := func(name string, w http.ResponseWriter, r *http.Request) {
		var report strings.Builder
		failed := false
		for _, c := range checks {
			switch {
			case name != "" && name != c.name:
			case c.run != nil && c.run() != nil:
				failed = true
				fmt.Fprintf(&report, "[-]%s failed: reason withheld\n", c.name)
			default:
				fmt.Fprintf(&report, "[+]%s ok\n", c.name)
			}
		}
		switch {
		case failed:
			http.Error(w, report.String()+"healthz check failed", http.StatusInternalServerError)
		case r.URL.Query().Has("verbose"):
			fmt.Fprint(w, report.String()+"healthz check passed\n")
		default:
			fmt.Fprint(w, "ok")
		}
	}
	for _, c := range checks {
		mux.HandleFunc("GET /healthz/"+c.name, func(w http.ResponseWriter, r *http.Request) { serve(c.name, w, r) })
	}
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) { serve("", w, r) })
	return mux
}

func reply(w http.ResponseWriter, v any, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		slog.Debug("write answer", "err", err)
	}
}

func list(pods []*corev1.Pod) corev1.PodList {
	l := corev1.PodList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"}, Items: make([]corev1.Pod, len(pods))}
	for i, p := range pods {
		l.Items[i] = *p
	}
	return l
}

func (s *server) pods(w http.ResponseWriter, _ *http.Request) { reply(w, list(s.Pods()), nil) }

func (s *server) runningPods(w http.ResponseWriter, r *http.Request) {
	pods, err := s.Running(r.Context())
	reply(w, list(pods), err)
}

func (s *server) summary(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodPost {
		w.Header().Set("Allow", "GET, POST")
		http.Error(w, "405: Method Not Allowed", http.StatusMethodNotAllowed)
		return
	}
	only, err := strconv.ParseBool(r.FormValue("only_cpu_and_memory"))
	if err != nil && r.FormValue("only_cpu_and_memory") != "" {
		http.Error(w, "only_cpu_and_memory: "+err.Error(), http.StatusBadRequest)
		return
	}
	sum, err := s.Summary(r.Context(), only)
	reply(w, sum, err)
}

func (s *server) spec(w http.ResponseWriter, _ *http.Request) {
	spec, err := s.Spec()
	reply(w, spec, err)
}

func (s *server) configz(w http.ResponseWriter, _ *http.Request) {
	reply(w, map[string]any{"kubeletconfig": s.Configz}, nil)
}

// hostLogs serves files of the node's log directory, and nothing that a link
// in it points to outside.
func (s *server) hostLogs(w http.ResponseWriter, r *http.Request) {
	root, err := os.OpenRoot(s.LogDir)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer func() { _ = root.Close() }()
	http.StripPrefix("/logs/", http.FileServerFS(root.FS())).ServeHTTP(w, r)
}

func (s *server) setLevel(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 100))
	v, err2 := strconv.Atoi(string(body))
	switch {
	case s.Level == nil:
		http.Error(w, "flags endpoint is disabled.", http.StatusMethodNotAllowed)
	case err != nil || err2 != nil:
		http.Error(w, errors.Join(err, err2).Error(), http.StatusBadRequest)
	default:
		s.Level.Set(slog.LevelInfo - 4*slog.Level(min(1, v/4))) // stock's debugging begins at 4
		fmt.Fprintf(w, "successfully set klog.logging.verbosity to %d", v)
	}
}

func (s *server) checkpoint(w http.ResponseWriter, r *http.Request) {
	if pod := s.pod(w, r); pod != nil {
		http.Error(w, "checkpointing containers is not supported by this kubelet", http.StatusNotImplemented)
	}
}

// pod is the pod that the path names. Where there is none the client is told.
func (s *server) pod(w http.ResponseWriter, r *http.Request) *corev1.Pod {
	name, uid := r.PathValue("pod"), types.UID(r.PathValue("uid"))
	for _, p := range s.Pods() {
		if p.Namespace == r.PathValue("namespace") && p.Name == name && (uid == "" || uid == p.UID) {
			return p
		}
	}
	http.Error(w, fmt.Sprintf("pod %q does not exist", name), http.StatusNotFound)
	return nil
}

// container is the pod and the container in it that the path names.
func (s *server) container(w http.ResponseWriter, r *http.Request) (*corev1.Pod, *corev1.Container) {
	pod := s.pod(w, r)
	if pod == nil {
		return nil, nil
	}
	name := r.PathValue("container")
	for _, c := range slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers) {
		if c.Name == name {
			return pod, &c
		}
	}
	for _, c := range pod.Spec.EphemeralContainers {
		if c.Name == name {
			return pod, (*corev1.Container)(&c.EphemeralContainerCommon)
		}
	}
	http.Error(w, fmt.Sprintf("container %q not found in pod %q", name, pod.Name), http.StatusNotFound)
	return nil, nil
}

// contract: LG-1
func (s *server) containerLogs(w http.ResponseWriter, r *http.Request) {
	opts, code, err := logOptions(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), code)
		return
	}
	pod, c := s.container(w, r)
	if c == nil {
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	out := &body{ResponseWriter: w}
	switch err := s.Logs(r.Context(), pod, c.Name, opts, out); {
	case err != nil && !out.begun:
		http.Error(w, err.Error(), http.StatusBadRequest)
	case err != nil:
		slog.DebugContext(r.Context(), "serve log", "obj", "Pod/"+pod.Namespace+"/"+pod.Name, "err", err)
	}
}

// A body knows whether it has begun, so that it is too late to answer otherwise.
type body struct {
	http.ResponseWriter

	begun bool
}

func (b *body) Write(p []byte) (int, error) {
	b.begun = b.begun || len(p) > 0
	return b.ResponseWriter.Write(p)
}

func (b *body) Flush() {
	b.begun = true
	if f, ok := b.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

// logOptions reads the options as the API server writes them.
func logOptions(query url.Values) (_ *corev1.PodLogOptions, code int, err error) {
	tail := "tailLines"
	if query.Has("tail") { // the name of old
		tail = "tail"
	}
	if query.Get("tail") == "all" {
		query.Del(tail)
	}
	var undecoded error
	number := func(name string, least int64) *int64 {
		if !query.Has(name) {
			return nil
		}
		n, err2 := strconv.ParseInt(query.Get(name), 10, 64)
		undecoded = errors.Join(undecoded, err2)
		if n < least && err2 == nil {
			err = errors.New(`{"message": "Invalid request."}`)
		}
		return &n
	}
	truth := func(name string) bool {
		v := query.Get(name)
		return query.Has(name) && v != "false" && v != "0"
	}
	opts := &corev1.PodLogOptions{
		Follow: truth("follow"), Previous: truth("previous"), Timestamps: truth("timestamps"),
		SinceSeconds: number("sinceSeconds", 1), TailLines: number(tail, 0), LimitBytes: number("limitBytes", 1),
	}
	if at := query.Get("sinceTime"); at != "" {
		since, err2 := time.Parse(time.RFC3339, at)
		undecoded = errors.Join(undecoded, err2)
		opts.SinceTime = &metav1.Time{Time: since}
	}
	if which := query.Get("stream"); which != "" {
		opts.Stream = &which
	}
	switch {
	case undecoded != nil:
		return nil, http.StatusBadRequest, errors.New(`{"message": "Unable to decode query."}`)
	case err != nil || opts.SinceSeconds != nil && opts.SinceTime != nil:
		return nil, http.StatusUnprocessableEntity, errors.New(`{"message": "Invalid request."}`)
	}
	return opts, 0, nil
}

// ends are the ends of a process that a client asks for, nil where it forgot
// to and has been told.
func ends(w http.ResponseWriter, query url.Values) *runtimeapi.AttachRequest {
	e := &runtimeapi.AttachRequest{Stdin: query.Get("input") == "1", Stdout: query.Get("output") == "1", Stderr: query.Get("error") == "1"}
	if !e.Stdin && !e.Stdout && !e.Stderr {
		http.Error(w, "you must specify at least 1 of stdin, stdout, stderr", http.StatusBadRequest)
		return nil
	}
	return e
}

// contract: LG-2
func (s *server) exec(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	e := ends(w, query)
	if e == nil {
		return
	}
	if pod := s.pod(w, r); pod != nil {
		tty := query.Get("tty") == "1"
		s.Streams.Exec(w, r, pod, r.PathValue("container"), &runtimeapi.ExecRequest{
			Cmd: query["command"], Tty: tty, Stdin: e.Stdin, Stdout: e.Stdout, Stderr: e.Stderr && !tty, // a terminal has one output
		})
	}
}

func (s *server) attach(w http.ResponseWriter, r *http.Request) {
	e := ends(w, r.URL.Query())
	if e == nil {
		return
	}
	if pod, c := s.container(w, r); c != nil {
		// Whether there is a terminal was settled when the container was made.
		e.Tty, e.Stderr = c.TTY, e.Stderr && !c.TTY
		s.Streams.Attach(w, r, pod, c.Name, e)
	}
}

func (s *server) portForward(w http.ResponseWriter, r *http.Request) {
	req := &runtimeapi.PortForwardRequest{}
	// With SPDY each stream names its port.
	if strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		for p := range strings.SplitSeq(strings.Join(r.URL.Query()["port"], ","), ",") {
			port, err := strconv.ParseUint(p, 10, 16)
			if err != nil || port == 0 {
				http.Error(w, fmt.Sprintf("query parameter \"port\" has no port: %q", p), http.StatusBadRequest)
				return
			}
			req.Port = append(req.Port, int32(port))
		}
	}
	if pod := s.pod(w, r); pod != nil {
		s.Streams.PortForward(w, r, pod, req)
	}
}

func (s *server) run(w http.ResponseWriter, r *http.Request) {
	pod := s.pod(w, r)
	if pod == nil {
		return
	}
	out, err := s.Streams.Run(r.Context(), pod, r.PathValue("container"), strings.Split(r.FormValue("cmd"), " "))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json") // as stock, whatever it is
	if _, err := w.Write(out); err != nil {
		slog.DebugContext(r.Context(), "write answer", "err", err)
	}
}
