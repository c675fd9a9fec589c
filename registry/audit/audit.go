// Package audit writes down who asked what of the server and how it was
// answered, as much of it as a policy says: one event a line, as JSON. It
// refuses nothing; package authz does.
package audit

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"github.com/knarr-dev/knarr/registry"
)

// A Log is where events go.
type Log struct {
	policy *policy
	now    func() time.Time

	mu  sync.Mutex
	out io.Writer
}

// Open opens a log at path, - for standard output, that keeps to the policy
// in a file.
func Open(policyFile, path string) (*Log, error) {
	p, err := readPolicy(policyFile)
	if err != nil {
		return nil, err
	}
	l := &Log{policy: p, now: time.Now, out: os.Stdout}
	if path != "-" {
		// What was written before stays.
		if l.out, err = os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
			return nil, fmt.Errorf("open audit log: %w", err)
		}
	}
	return l, nil
}

// Begin notes a request whose user is known, or is known to be nobody. It
// returns what the answer is to be written to, and what is to be called when
// there is no more to it. One without an end is written down when its answer
// begins, too.
func (l *Log) Begin(w http.ResponseWriter, r *http.Request, req *registry.Request, endless bool) (http.ResponseWriter, func()) {
	v := l.policy.of(req)
	if v.level == auditv1.LevelNone {
		return w, func() {}
	}
	n := &note{log: l, verdict: v, req: req, user: req.User, began: l.now(), event: begun(w, r, req, l.now())}
	n.event.Level = v.level
	n.write(auditv1.StageRequestReceived)
	makes := req.Resource && req.Verb == "create" && req.Name == ""
	if n.bodies() || makes {
		n.sent = &capture{}
		r.Body = &listened{r.Body, n.sent}
		n.sentType = r.Header.Get("Content-Type")
	}
	n.answer = &writer{ResponseWriter: w, note: n, endless: endless}
	return n.answer, n.end
}

// begun is an event as far as the request tells.
func begun(w http.ResponseWriter, r *http.Request, req *registry.Request, now time.Time) auditv1.Event {
	e := auditv1.Event{
		TypeMeta:   metav1.TypeMeta{Kind: "Event", APIVersion: auditv1.SchemeGroupVersion.String()},
		AuditID:    types.UID(w.Header().Get("Audit-Id")),
		RequestURI: r.URL.RequestURI(), Verb: req.Verb, User: info(&req.User), UserAgent: agent(req.Agent),
		RequestReceivedTimestamp: metav1.NewMicroTime(now),
	}
	for _, ip := range utilnet.SourceIPs(r) {
		e.SourceIPs = append(e.SourceIPs, ip.String())
	}
	if req.Resource {
		e.ObjectRef = &auditv1.ObjectReference{
			Resource: req.Plural, Namespace: req.Namespace, Name: req.Name, APIGroup: req.Group, APIVersion: req.Version, Subresource: req.Sub,
		}
	}
	return e
}

// maxAgent is how much of a User-Agent is written down, as upstream.
const maxAgent = 1024

func agent(name string) string {
	if len(name) > maxAgent {
		return name[:maxAgent] + "...TRUNCATED"
	}
	return name
}

func info(u *registry.User) authenticationv1.UserInfo {
	i := authenticationv1.UserInfo{Username: u.Name, UID: u.UID, Groups: u.Groups}
	for k, v := range u.Extra {
		if i.Extra == nil {
			i.Extra = map[string]authenticationv1.ExtraValue{}
		}
		i.Extra[k] = v
	}
	return i
}

// A note is what is being written down of one request.
type note struct {
	verdict

	log      *Log
	req      *registry.Request
	user     registry.User // who asked, though it be in another's name
	began    time.Time
	event    auditv1.Event
	sent     *capture // nil where it is not wanted
	sentType string
	answer   *writer
}

// bodies reports whether what is sent is written down; answers whether what
// is answered is, too.
func (n *note) bodies() bool {
	return n.level == auditv1.LevelRequest || n.level == auditv1.LevelRequestResponse
}
func (n *note) answers() bool { return n.level == auditv1.LevelRequestResponse }

// answered notes the code that the answer begins with.
func (n *note) answered(code int) {
	n.event.ResponseStatus = &metav1.Status{Code: int32(code)}
	n.fill()
}

// fill notes what has come to be known since the request was received.
func (n *note) fill() {
	if !reflect.DeepEqual(n.user, n.req.User) {
		as := info(&n.req.User)
		n.event.ImpersonatedUser = &as
	}
	for key, value := range n.req.Annotations() {
		if !strings.Contains(key, "/") {
			continue // not meant for here
		}
		if n.event.Annotations == nil {
			n.event.Annotations = map[string]string{}
		}
		n.event.Annotations[key] = value
	}
	if n.sent != nil && n.event.RequestObject == nil {
		obj := object(n.sent.bytes(), n.sentType, "", n.fields)
		n.refer(obj)
		if n.bodies() {
			n.event.RequestObject = obj
		}
	}
}

// end writes down how a request ended.
func (n *note) end() {
	if n.answer.code == 0 {
		n.event.ResponseStatus = &metav1.Status{Code: http.StatusOK, Status: metav1.StatusSuccess, Message: "Connection closed early"}
	}
	n.fill()
	n.answer.tell(n)
	n.write(auditv1.StageResponseComplete)
}

// write writes the event as it is at a stage.
func (n *note) write(stage auditv1.Stage) {
	if slices.Contains(n.omit, stage) {
		return
	}
	n.event.Stage = stage
	n.event.StageTimestamp = metav1.NewMicroTime(n.log.now())
	line, err := json.Marshal(&n.event)
	if err == nil {
		n.log.mu.Lock()
		defer n.log.mu.Unlock()
		_, err = n.log.out.Write(append(line, '\n'))
	}
	if err != nil {
		slog.Error("write audit event", "err", err)
	}
}
