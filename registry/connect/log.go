package connect

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/streaming/pkg/httpstream/wsstream"

	"github.com/knarr-dev/knarr/registry"
)

// log serves the log of a container.
// contract: SR-7
func (c *connector) log(w http.ResponseWriter, r *http.Request, req *registry.Request) error {
	if err := leaf(req); err != nil {
		return err
	}
	opts, err := logOptions(r.URL.Query())
	if err != nil {
		return err
	}
	if errs := checkLogOptions(opts); len(errs) > 0 {
		return apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("PodLogOptions").GroupKind(), req.Name, errs)
	}
	pod, err := c.pod(r.Context(), req.Namespace, req.Name)
	if err != nil {
		return err
	}
	container, err := choose(pod, opts.Container)
	if err != nil {
		return err
	}
	if pod.Spec.NodeName == "" {
		w.Header().Set("Content-Type", "text/plain") // nothing has been logged yet
		w.WriteHeader(http.StatusOK)
		return nil
	}
	k, err := c.kubelet(r.Context(), pod)
	if err != nil {
		return err
	}
	transport := k.transport
	if opts.InsecureSkipTLSVerifyBackend {
		transport = k.trusting
	}
	at := k.at(fmt.Sprintf("/containerLogs/%s/%s/%s", pod.Namespace, pod.Name, container), logQuery(opts))
	get, err := http.NewRequestWithContext(r.Context(), http.MethodGet, at.String(), nil)
	if err != nil {
		return unexplained(err)
	}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return errors.New("redirects forbidden")
	}}
	resp, err := client.Do(get)
	if err != nil {
		return unexplained(err)
	}
	defer func() { _ = resp.Body.Close() }() // it was only read
	if err := answered(resp, req.Name); err != nil {
		return err
	}
	sendLog(w, r, resp.Body, opts.Follow)
	return nil
}

// sendLog passes a log on as it comes.
func sendLog(w http.ResponseWriter, r *http.Request, log io.Reader, follow bool) {
	if wsstream.IsWebSocketRequest(r) {
		reader := wsstream.NewReader(log, true, wsstream.NewDefaultReaderProtocols())
		if err := reader.Copy(lasting(r.Context(), w, func() {}), r); err != nil {
			slog.DebugContext(r.Context(), "send log to a web socket", "err", err)
		}
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	w.WriteHeader(http.StatusOK)
	out := http.NewResponseController(w)
	_ = out.Flush() // a client that follows is to see at once that it does
	var to io.Writer = w
	if follow {
		to = flushing{w, out}
	}
	if _, err := io.Copy(to, log); err != nil {
		slog.DebugContext(r.Context(), "send log", "err", err)
		panic(http.ErrAbortHandler) // lets the client see that it is not whole
	}
}

// flushing sends what is written at once.
type flushing struct {
	io.Writer

	out *http.ResponseController
}

// Write is part of io.Writer.
func (f flushing) Write(p []byte) (int, error) {
	n, err := f.Writer.Write(p)
	if err == nil {
		err = f.out.Flush()
	}
	return n, err
}

// maxText is how much of a kubelet's error is passed on.
const maxText = 50000

// answered makes an error of a kubelet's answer that is none.
func answered(resp *http.Response, name string) error {
	if resp.StatusCode >= http.StatusOK && resp.StatusCode <= http.StatusPartialContent {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxText))
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	text := strings.TrimSuffix(string(body), "\n")
	switch resp.StatusCode {
	case http.StatusInternalServerError:
		return apierrors.NewInternalError(errors.New(text))
	case http.StatusBadRequest:
		return apierrors.NewBadRequest(text)
	}
	return apierrors.NewGenericServerResponse(resp.StatusCode, "", corev1.Resource("pods/log"), name, text, 0, false)
}

func logOptions(values url.Values) (*corev1.PodLogOptions, error) {
	q := &query{values: values}
	opts := &corev1.PodLogOptions{
		Container: q.text("container"), Follow: q.truth("follow"), Previous: q.truth("previous"), Timestamps: q.truth("timestamps"),
		SinceSeconds: q.number("sinceSeconds"), SinceTime: q.time("sinceTime"), TailLines: q.number("tailLines"),
		LimitBytes: q.number("limitBytes"), InsecureSkipTLSVerifyBackend: q.truth("insecureSkipTLSVerifyBackend"),
	}
	if stream := q.text("stream"); stream != "" {
		opts.Stream = &stream
	}
	return opts, q.err
}

var logStreams = []string{corev1.LogStreamAll, corev1.LogStreamStderr, corev1.LogStreamStdout}

func checkLogOptions(opts *corev1.PodLogOptions) (errs field.ErrorList) {
	least := func(name string, n *int64, least int64, text string) {
		if n != nil && *n < least {
			errs = append(errs, field.Invalid(field.NewPath(name), *n, text))
		}
	}
	least("tailLines", opts.TailLines, 0, "must be greater than or equal to 0")
	least("limitBytes", opts.LimitBytes, 1, "must be greater than 0")
	if opts.SinceSeconds != nil && opts.SinceTime != nil {
		errs = append(errs, field.Forbidden(field.NewPath(""), "at most one of `sinceTime` or `sinceSeconds` may be specified"))
	} else {
		least("sinceSeconds", opts.SinceSeconds, 1, "must be greater than 0")
	}
	if opts.Stream == nil {
		return errs
	}
	switch *opts.Stream {
	case corev1.LogStreamAll:
	case corev1.LogStreamStdout, corev1.LogStreamStderr:
		if opts.TailLines != nil {
			errs = append(errs, field.Forbidden(field.NewPath(""), "`tailLines` and specific `stream` are mutually exclusive for now"))
		}
	default:
		errs = append(errs, field.NotSupported(field.NewPath("stream"), *opts.Stream, logStreams))
	}
	return errs
}

// logQuery is the options as kubelets read them.
func logQuery(opts *corev1.PodLogOptions) url.Values {
	v := url.Values{}
	for name, is := range map[string]bool{"follow": opts.Follow, "previous": opts.Previous, "timestamps": opts.Timestamps} {
		if is {
			v.Set(name, "true")
		}
	}
	for name, n := range map[string]*int64{"sinceSeconds": opts.SinceSeconds, "tailLines": opts.TailLines, "limitBytes": opts.LimitBytes} {
		if n != nil {
			v.Set(name, strconv.FormatInt(*n, 10))
		}
	}
	if opts.SinceTime != nil {
		v.Set("sinceTime", opts.SinceTime.Format(time.RFC3339))
	}
	if opts.Stream != nil {
		v.Set("stream", *opts.Stream)
	}
	return v
}
