package server

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/registry/cache"
	"github.com/knarr-dev/knarr/registry/rest"
	"github.com/knarr-dev/knarr/registry/table"
	"github.com/knarr-dev/knarr/registry/wire"
)

// How long a watch goes on that does not say, at least; and how often a
// client that wants it is told of progress.
const (
	minWatch   = 30 * time.Minute
	bookmarkIn = time.Minute
)

// A feed writes the events of one watch.
type feed struct {
	*answer

	form   *rest.Form
	stream *rest.Stream
	buf    []byte
	first  bool  // no table has been sent yet, so that its columns are to come
	rev    int64 // of the last event or bookmark
	cut    *time.Timer
}

// watch streams events until the client goes, time is up or the server ends.
func (a *answer) watch(f *rest.Form, s *rest.Stream, timeout time.Duration) {
	defer s.Close()
	fd := &feed{answer: a, form: f, stream: s, first: true, rev: s.Rev}
	a.w.Header().Set("Content-Type", watchType(a.f.media))
	a.w.WriteHeader(http.StatusOK)
	out := http.NewResponseController(a.w)
	fd.cut = time.AfterFunc(a.s.SlowWatch, func() { cutOff(a.w) })
	defer fd.cut.Stop()
	if err := fd.begin(); err != nil || fd.flush(out) != nil {
		return // the client is gone
	}
	if timeout == 0 {
		timeout = minWatch + rand.N(minWatch)
	}
	end := time.NewTimer(timeout)
	defer end.Stop()
	tick := time.NewTicker(bookmarkIn)
	defer tick.Stop()
	for {
		var marked bool
		select {
		case <-s.Ready():
		case <-tick.C:
			marked = s.Bookmarks
		case <-end.C:
			return
		case <-a.r.Context().Done():
			return
		case <-a.s.stopping:
			return
		}
		if fd.next(marked) != nil || fd.flush(out) != nil {
			return
		}
	}
}

func watchType(media string) string {
	if media == wire.Protobuf {
		return media + ";stream=watch"
	}
	return media
}

// begin writes the objects that were there at the start.
func (fd *feed) begin() error {
	for _, o := range fd.stream.Initial {
		if err := fd.event(cache.Added, o); err != nil {
			return err
		}
	}
	fd.stream.Initial = nil // not needed any more, and there may be many
	if fd.stream.Marked {
		return fd.bookmark(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	}
	return nil
}

// next writes what has happened, and then a bookmark if one is wanted.
func (fd *feed) next(marked bool) error {
	events, rev, err := fd.stream.Take()
	if err != nil {
		return err
	}
	for _, e := range events {
		if err := fd.event(e.Type, e.Object); err != nil {
			return err
		}
	}
	fd.rev = max(fd.rev, rev)
	if marked {
		return fd.bookmark(nil)
	}
	return nil
}

// event writes one event, by the object's bytes if it can.
func (fd *feed) event(typ string, o *cache.Object) error {
	if fd.f.shape != whole {
		obj, err := fd.form.Decode(o)
		if err != nil {
			return err
		}
		shaped, err := fd.shaped(obj)
		if err != nil {
			return err
		}
		return fd.add(typ, shaped)
	}
	if fd.f.media == wire.Protobuf {
		b, err := fd.form.Bytes(o)
		if err != nil {
			return err
		}
		fd.buf = b.AppendEventFrame(fd.buf, typ)
	} else {
		text, err := fd.form.JSON(o)
		if err != nil {
			return err
		}
		fd.buf = append(fd.buf, `{"type":"`...)
		fd.buf = append(append(fd.buf, typ...), `","object":`...)
		fd.buf = append(fd.form.Wire.AppendJSON(fd.buf, text), "}\n"...)
	}
	fd.rev = max(fd.rev, o.Rev)
	return fd.spill()
}

// shaped is an object in the shape that was asked for.
func (fd *feed) shaped(obj apis.Object) (runtime.Object, error) {
	shown := fd.form.Show(obj)
	shown.GetObjectKind().SetGroupVersionKind(fd.form.Wire.GroupVersionKind)
	if fd.f.shape == metaOnly {
		return table.Metadata(shown, fd.f.group), nil
	}
	t := fd.newTable(fd.form, metav1.ListMeta{ResourceVersion: obj.GetResourceVersion()}, fd.first)
	fd.first = false
	return t, fd.addRow(fd.form, t, obj, shown)
}

// bookmark tells that everything up to a revision has been sent.
func (fd *feed) bookmark(annotations map[string]string) error {
	obj := fd.form.Wire.New()
	obj.GetObjectKind().SetGroupVersionKind(fd.form.Wire.GroupVersionKind)
	obj.SetResourceVersion(strconv.FormatInt(fd.rev, 10))
	obj.SetAnnotations(annotations)
	if fd.f.shape == whole {
		return fd.add("BOOKMARK", obj)
	}
	if fd.f.shape == metaOnly {
		return fd.add("BOOKMARK", table.Metadata(obj, fd.f.group))
	}
	t := fd.newTable(fd.form, metav1.ListMeta{ResourceVersion: obj.GetResourceVersion()}, fd.first)
	fd.first = false
	if err := fd.addRow(fd.form, t, fd.form.Definition.New(), obj); err != nil {
		return err
	}
	return fd.add("BOOKMARK", t)
}

// add writes an event of an object that is not of the cache.
func (fd *feed) add(typ string, obj runtime.Object) error {
	data, err := wire.Marshal(fd.f.media, obj, false)
	if err != nil {
		return err
	}
	if fd.f.media == wire.Protobuf {
		fd.buf = wire.EventFrame(fd.buf, typ, data)
		return fd.spill()
	}
	fd.buf = fmt.Appendf(fd.buf, `{"type":%q,"object":%s}`+"\n", typ, bytes.TrimSpace(data))
	return fd.spill()
}

// enough is how much of a watch is gathered before it is sent.
const enough = 256 << 10

// spill writes out what has gathered when it is enough.
func (fd *feed) spill() error {
	if len(fd.buf) < enough {
		return nil
	}
	return fd.write()
}

// write sends what has gathered. Who does not read it in time is cut off.
func (fd *feed) write() error {
	fd.cut.Reset(fd.s.SlowWatch)
	_, err := fd.w.Write(fd.buf)
	fd.buf = fd.buf[:0]
	return err
}

// flush sends everything written so far.
func (fd *feed) flush(out *http.ResponseController) error {
	defer fd.cut.Stop()
	if len(fd.buf) > 0 {
		if err := fd.write(); err != nil {
			return err
		}
	}
	return out.Flush()
}
