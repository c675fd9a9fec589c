package audit

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"sigs.k8s.io/yaml"

	"github.com/knarr-dev/knarr/apis/all"
)

// maxBody is how much of a body is kept, which is as much as the server
// takes; of an answer there may be more, and then it is not written down.
const maxBody = 3 << 20

// A capture keeps a copy of what passes.
type capture struct {
	mu   sync.Mutex
	buf  []byte
	over bool
}

func (c *capture) add(p []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over = c.over || len(c.buf)+len(p) > maxBody; c.over {
		c.buf = nil
		return
	}
	c.buf = append(c.buf, p...)
}

func (c *capture) bytes() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.buf
}

// listened is a body that is captured as it is read.
type listened struct {
	io.ReadCloser

	to *capture
}

func (l *listened) Read(p []byte) (int, error) {
	n, err := l.ReadCloser.Read(p)
	l.to.add(p[:n])
	return n, err
}

// A writer passes an answer on and keeps of it what is to be written down.
type writer struct {
	http.ResponseWriter

	note    *note
	endless bool
	code    int
	kept    capture
}

// Unwrap lets http.ResponseController reach the connection.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *writer) WriteHeader(code int) {
	if w.code == 0 && code >= http.StatusOK || code == http.StatusSwitchingProtocols {
		w.code = code
		w.note.answered(code)
		if w.endless {
			w.note.write(auditv1.StageResponseStarted)
		}
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *writer) Write(p []byte) (int, error) {
	if w.code == 0 {
		w.WriteHeader(http.StatusOK)
	}
	// An error tells what it is, and is told at every level.
	if w.note.answers() && !w.endless || w.code >= http.StatusBadRequest {
		w.kept.add(p)
	}
	return w.ResponseWriter.Write(p)
}

// tell puts what was answered into the event.
func (w *writer) tell(n *note) {
	body := w.kept.bytes()
	if len(body) == 0 {
		return
	}
	h := w.Header()
	obj := object(body, h.Get("Content-Type"), h.Get("Content-Encoding"), n.fields)
	if obj == nil {
		return
	}
	if n.answers() {
		n.event.ResponseObject = obj
	}
	var status metav1.Status
	if json.Unmarshal(obj.Raw, &status) == nil && status.Kind == "Status" {
		n.event.ResponseStatus = &metav1.Status{
			Status: status.Status, Message: status.Message, Reason: status.Reason, Details: status.Details, Code: status.Code,
		}
	}
}

// object is a body as JSON, nil where it is nothing that can be shown so.
func object(body []byte, media, encoding string, bare bool) *runtime.Unknown {
	if encoding == "gzip" {
		z, err := gzip.NewReader(bytes.NewReader(body))
		if err != nil {
			return nil
		}
		if body, err = io.ReadAll(z); err != nil {
			return nil
		}
	}
	media, _, err := mime.ParseMediaType(media)
	if err != nil {
		media = "application/json"
	}
	text := asJSON(body, media)
	if text == nil {
		return nil
	}
	if bare {
		text = withoutFields(text)
	}
	return &runtime.Unknown{Raw: text, ContentType: runtime.ContentTypeJSON}
}

func asJSON(body []byte, media string) []byte {
	switch media {
	case "application/vnd.kubernetes.protobuf":
		obj, gvk, err := serializer.NewCodecFactory(all.Scheme()).UniversalDeserializer().Decode(body, nil, nil)
		if err != nil {
			return nil
		}
		obj.GetObjectKind().SetGroupVersionKind(*gvk)
		text, err := json.Marshal(obj)
		if err != nil {
			return nil
		}
		return text
	case "application/yaml", "application/apply-patch+yaml":
		text, err := yaml.YAMLToJSON(body)
		if err != nil {
			return nil
		}
		return text
	}
	body = bytes.TrimSpace(body)
	if !json.Valid(body) {
		return nil
	}
	return bytes.Clone(body)
}

// withoutFields leaves out who owns the fields of an object, or of the items
// of a list.
func withoutFields(text []byte) []byte {
	var obj map[string]any
	if json.Unmarshal(text, &obj) != nil {
		return text // a patch is a list
	}
	strip := func(o any) {
		if m, ok := o.(map[string]any); ok {
			if meta, ok := m["metadata"].(map[string]any); ok {
				delete(meta, "managedFields")
			}
		}
	}
	strip(obj)
	if items, ok := obj["items"].([]any); ok {
		for _, item := range items {
			strip(item)
		}
	}
	stripped, err := json.Marshal(obj)
	if err != nil {
		return text
	}
	return stripped
}

// refer completes what the event says that the request is about by the object
// that was sent.
func (n *note) refer(obj *runtime.Unknown) {
	ref := n.event.ObjectRef
	if obj == nil || ref == nil {
		return
	}
	var o struct {
		Metadata struct {
			Namespace       string    `json:"namespace"`
			Name            string    `json:"name"`
			UID             types.UID `json:"uid"`
			ResourceVersion string    `json:"resourceVersion"`
		} `json:"metadata"`
	}
	if json.Unmarshal(obj.Raw, &o) != nil {
		return
	}
	set(&ref.Namespace, o.Metadata.Namespace)
	set(&ref.Name, o.Metadata.Name)
	set(&ref.UID, o.Metadata.UID)
	set(&ref.ResourceVersion, o.Metadata.ResourceVersion)
}

func set[T ~string](to *T, value T) {
	if *to == "" {
		*to = value
	}
}
