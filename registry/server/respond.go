package server

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/cache"
	"github.com/knarr-dev/knarr/registry/rest"
	"github.com/knarr-dev/knarr/registry/table"
	"github.com/knarr-dev/knarr/registry/wire"
)

// An answer writes one response. Its methods send at most one.
type answer struct {
	s    *Server
	w    http.ResponseWriter
	r    *http.Request
	f    format
	done func() // what is to be called at the end of a request
}

// fail sends an error as a Status.
func (a *answer) fail(err error) {
	status := statusOf(err)
	if status.Details != nil && status.Details.RetryAfterSeconds > 0 {
		a.w.Header().Set("Retry-After", strconv.Itoa(int(status.Details.RetryAfterSeconds)))
	}
	if a.f.media == "" {
		// It failed before there was a format: an error can take any.
		f, nerr := negotiate(a.r, offer{media: everyMedia})
		if nerr != nil {
			f = format{media: wire.JSON, pretty: prettyWanted(a.r)}
		}
		a.f = f
	}
	a.send(int(status.Code), status)
}

// statusOf is the Status that tells of an error.
func statusOf(err error) *metav1.Status {
	var known apierrors.APIStatus
	if !errors.As(err, &known) {
		// As upstream: what nobody has given a reason has none.
		known = &apierrors.StatusError{ErrStatus: metav1.Status{Message: err.Error()}}
	}
	status := known.Status()
	status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	if status.Status == "" {
		status.Status = metav1.StatusFailure
	}
	if status.Code == 0 {
		status.Code = http.StatusInternalServerError
	}
	return &status
}

// send sends an object that is not stored.
func (a *answer) send(code int, obj runtime.Object) {
	body, err := wire.Marshal(a.f.media, obj, a.f.pretty)
	if err != nil {
		slog.ErrorContext(a.r.Context(), "encode answer", "err", err)
		a.body(http.StatusInternalServerError, "text/plain", []byte(err.Error()))
		return
	}
	a.body(code, a.f.media, body)
}

// written sends an object that is in its stored form.
func (a *answer) written(f *rest.Form, code int, obj apis.Object) {
	shown := f.Show(obj)
	shown.GetObjectKind().SetGroupVersionKind(f.Wire.GroupVersionKind)
	a.object(f, code, obj, shown)
}

// made sends the object that a write has made, by the bytes that are stored
// if it can.
func (a *answer) made(f *rest.Form, code int, w rest.Written) {
	if w.Stored != nil && f.Custom != nil && f.Custom.Storage != f.Version {
		// Not all that a version has need have a place in the one that is stored.
		obj, err := w.Stored.Decode()
		if err != nil {
			a.fail(err)
			return
		}
		w.Object = obj
	}
	if w.Stored == nil || a.f.shape != whole || a.f.media != wire.Protobuf || f.IsView() {
		a.written(f, code, w.Object)
		return
	}
	a.body(code, wire.Protobuf, w.Stored.AppendProto(make([]byte, 0, w.Stored.ProtoLen())))
}

// stored sends an object of the cache, by its bytes if it can.
func (a *answer) stored(f *rest.Form, o *cache.Object) {
	switch {
	case a.f.shape != whole || a.f.media == wire.YAML || a.f.pretty:
		obj, err := f.Decode(o)
		if err != nil {
			a.fail(err)
			return
		}
		a.written(f, http.StatusOK, obj)
	case a.f.media == wire.Protobuf:
		b, err := f.Bytes(o)
		if err != nil {
			a.fail(err)
			return
		}
		a.body(http.StatusOK, wire.Protobuf, b.AppendProto(make([]byte, 0, b.ProtoLen())))
	default:
		text, err := f.JSON(o)
		if err != nil {
			a.fail(err)
			return
		}
		a.body(http.StatusOK, wire.JSON, append(f.Wire.AppendJSON(make([]byte, 0, len(text)+64), text), '\n'))
	}
}

// object sends an object, whose form for the client is shown, in the shape
// that was asked for.
func (a *answer) object(f *rest.Form, code int, obj, shown apis.Object) {
	switch a.f.shape {
	case metaOnly:
		a.send(code, table.Metadata(shown, a.f.group))
	case asTable:
		t := a.newTable(f, metav1.ListMeta{ResourceVersion: obj.GetResourceVersion()}, true)
		if err := a.addRow(f, t, obj, shown); err != nil {
			a.fail(apierrors.NewBadRequest(err.Error()))
			return
		}
		a.send(code, t)
	case metaList:
		a.fail(wrongShape(fmt.Sprintf("you requested PartialObjectMetadataList, but the requested object is not a list (*%s.%s)", f.Wire.Inside(), f.GroupVersionKind.Kind)))
	default:
		a.send(code, shown)
	}
}

func wrongShape(message string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusNotAcceptable, Reason: metav1.StatusReasonNotAcceptable, Message: message,
	}}
}

func (a *answer) newTable(f *rest.Form, meta metav1.ListMeta, columns bool) *metav1.Table {
	t := &metav1.Table{
		TypeMeta: metav1.TypeMeta{Kind: "Table", APIVersion: a.f.group}, ListMeta: meta,
		ColumnDefinitions: []metav1.TableColumnDefinition{}, Rows: []metav1.TableRow{},
	}
	if columns {
		t.ColumnDefinitions = table.Columns(f.Definition)
	}
	return t
}

func (a *answer) addRow(f *rest.Form, t *metav1.Table, obj, shown apis.Object) error {
	include := metav1.IncludeObjectPolicy(a.r.URL.Query().Get("includeObject"))
	row, err := table.Row(f.Definition, obj, shown, include, a.f.group, a.s.rest.Now())
	t.Rows = append(t.Rows, row)
	return err
}

// list sends a list, by the bytes of its objects if it can.
func (a *answer) list(f *rest.Form, objs []*cache.Object, meta wire.ListMeta) {
	var err error
	switch {
	case a.f.shape == metaOnly:
		err = wrongShape(fmt.Sprintf("you requested PartialObjectMetadata, but the requested object is a list (*%s.%sList)", f.Wire.Inside(), f.GroupVersionKind.Kind))
	case a.f.shape != whole:
		err = a.shapedList(f, objs, meta)
	case a.f.media == wire.Protobuf:
		err = a.protoList(f, objs, meta)
	default:
		err = a.jsonList(f, objs, meta)
	}
	if err != nil {
		a.fail(err)
	}
}

// chunk is how much of a list is put together before it is sent: with less,
// those who list at once wait for each other more often.
const chunk = 1 << 20

// chunks gathers small pieces into chunks for a writer. An error sticks, and
// nobody needs to look at it: the client is gone.
type chunks struct {
	out io.Writer
	b   []byte
	err error
}

// spare are the buffers of chunks that are done with.
var spare = sync.Pool{New: func() any { return new(make([]byte, 0, chunk+chunk/4)) }}

// gather gathers what is about size bytes in all.
func gather(out io.Writer, size int) *chunks {
	if size <= chunk/16 {
		return &chunks{out: out, b: make([]byte, 0, size)}
	}
	return &chunks{out: out, b: (*spare.Get().(*[]byte))[:0]}
}

func (c *chunks) flush(least int) {
	if len(c.b) < least || c.err != nil {
		return
	}
	_, c.err = c.out.Write(c.b)
	c.b = c.b[:0]
}

// end sends what is left. After an error the buffer is left alone: who was to
// write it may still read it.
func (c *chunks) end() {
	c.flush(0)
	if c.err == nil && cap(c.b) >= chunk && cap(c.b) <= 2*chunk {
		spare.Put(&c.b)
	}
}

// protoList sends the objects' messages one behind the other.
func (a *answer) protoList(f *rest.Form, objs []*cache.Object, meta wire.ListMeta) error {
	items, size := make([]*wire.Object, len(objs)), 0
	for i, o := range objs {
		b, err := f.Bytes(o)
		if err != nil {
			return err
		}
		items[i] = b
		size += b.ItemLen()
	}
	open := f.Wire.ListOpen(meta, size)
	size += len(open) + len(wire.ListEnd())
	out, done := a.stream(http.StatusOK, wire.Protobuf, size)
	defer done()
	c := gather(out, size)
	c.b = append(c.b, open...)
	for _, o := range items {
		c.b = o.AppendItem(c.b)
		c.flush(chunk)
	}
	c.b = append(c.b, wire.ListEnd()...)
	c.end()
	return nil
}

// jsonList sends the objects' JSON joined by commas, or what is made of it.
func (a *answer) jsonList(f *rest.Form, objs []*cache.Object, meta wire.ListMeta) error {
	texts := make([][]byte, len(objs))
	open := f.Wire.JSONListOpen(meta)
	size := len(open) + len(listClose) + max(0, len(objs)-1)
	for i, o := range objs {
		text, err := f.JSON(o)
		if err != nil {
			return err
		}
		texts[i] = text
		size += len(text)
	}
	if a.f.media == wire.YAML || a.f.pretty {
		var whole bytes.Buffer
		joinJSON(&whole, size, open, texts)
		return a.rewritten(whole.Bytes())
	}
	out, done := a.stream(http.StatusOK, wire.JSON, size)
	defer done()
	joinJSON(out, size, open, texts)
	return nil
}

const listClose = "]}\n"

func joinJSON(out io.Writer, size int, open []byte, texts [][]byte) {
	c := gather(out, size)
	c.b = append(c.b, open...)
	for i, text := range texts {
		if i > 0 {
			c.b = append(c.b, ',')
		}
		c.b = append(c.b, text...)
		c.flush(chunk)
	}
	c.b = append(c.b, listClose...)
	c.end()
}

// rewritten sends compact JSON as YAML, or indented.
func (a *answer) rewritten(text []byte) error {
	if a.f.media == wire.YAML {
		body, err := yaml.JSONToYAML(text)
		if err != nil {
			return err
		}
		a.body(http.StatusOK, wire.YAML, body)
		return nil
	}
	var b bytes.Buffer
	if err := json.Indent(&b, bytes.TrimSpace(text), "", "  "); err != nil {
		return err
	}
	a.body(http.StatusOK, wire.JSON, b.Bytes())
	return nil
}

// shapedList sends a list as a table, or of metadata only.
func (a *answer) shapedList(f *rest.Form, objs []*cache.Object, meta wire.ListMeta) error {
	listMeta := metav1.ListMeta{ResourceVersion: strconv.FormatInt(meta.Rev, 10), Continue: meta.Continue, RemainingItemCount: meta.Remaining}
	return a.shaped(f, listMeta, func(yield func(apis.Object, error) bool) {
		for _, o := range objs {
			if obj, err := f.Decode(o); !yield(obj, err) {
				return
			}
		}
	})
}

func (a *answer) shaped(f *rest.Form, listMeta metav1.ListMeta, objs iter.Seq2[apis.Object, error]) error {
	t := a.newTable(f, listMeta, true)
	partial := &metav1.PartialObjectMetadataList{
		TypeMeta: metav1.TypeMeta{Kind: "PartialObjectMetadataList", APIVersion: a.f.group},
		ListMeta: listMeta, Items: []metav1.PartialObjectMetadata{},
	}
	for obj, err := range objs {
		if err != nil {
			return err
		}
		shown := f.Show(obj)
		shown.GetObjectKind().SetGroupVersionKind(f.Wire.GroupVersionKind)
		if a.f.shape == asTable {
			if err := a.addRow(f, t, obj, shown); err != nil {
				return apierrors.NewBadRequest(err.Error())
			}
			continue
		}
		partial.Items = append(partial.Items, *table.Metadata(shown, a.f.group))
	}
	if a.f.shape == asTable {
		a.send(http.StatusOK, t)
	} else {
		a.send(http.StatusOK, partial)
	}
	return nil
}

// body sends a whole body.
func (a *answer) body(code int, media string, body []byte) {
	out, done := a.stream(code, media, len(body))
	defer done()
	_, _ = out.Write(body) // nobody is left to tell
}

// compressFrom is the size from which reads are compressed for clients that
// want it, as upstream.
const compressFrom = 128 << 10

// stream begins a body of the given size. The caller writes it and calls done.
func (a *answer) stream(code int, media string, size int) (out io.Writer, done func()) {
	h := a.w.Header()
	h.Set("Content-Type", media)
	warn(h, registry.RequestOf(a.r.Context()).Warnings())
	read := a.r.Method == http.MethodGet
	if read && size >= compressFrom && strings.Contains(a.r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		h.Add("Vary", "Accept-Encoding")
		a.w.WriteHeader(code)
		z, err := gzip.NewWriterLevel(a.w, gzip.BestSpeed)
		if err != nil {
			panic(err) // BestSpeed is a level
		}
		return z, func() { _ = z.Close() } // nobody is left to tell
	}
	h.Set("Content-Length", strconv.Itoa(size))
	a.w.WriteHeader(code)
	return a.w, func() {}
}

// Warnings are cut where they grow beyond what clients take in headers.
const (
	maxWarnings = 4 << 10 // bytes in all before they are cut
	maxWarning  = 256     // characters of each that is cut
)

// warn adds warnings to a header.
func warn(h http.Header, texts []string) {
	total := 0
	for _, t := range texts {
		total += len(t)
	}
	left := maxWarnings
	for _, t := range texts {
		if total > maxWarnings && utf8.RuneCountInString(t) > maxWarning {
			t = string([]rune(t)[:maxWarning])
		}
		if left -= len(t); left < 0 {
			return
		}
		h.Add("Warning", "299 - "+quoted(t))
	}
}

// quoted is a text as a quoted-string of RFC 7230, without what a header
// cannot carry.
func quoted(text string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range text {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
		case c < ' ' || c == 0x7f:
			continue
		}
		b.WriteRune(c)
	}
	b.WriteByte('"')
	return b.String()
}
