package server

import (
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-dev/knarr/registry/wire"
)

// A shape is what objects are turned into for the client, apart from how
// they are encoded.
type shape string

// The shapes, by the parameter as of the media type.
const (
	whole    shape = ""
	asTable  shape = "Table"
	metaOnly shape = "PartialObjectMetadata"
	metaList shape = "PartialObjectMetadataList"
)

// A format is how an answer is to be written.
type format struct {
	media  string // wire.JSON, wire.YAML or wire.Protobuf
	shape  shape
	group  string // the version of meta.k8s.io that the shape is wanted in
	pretty bool
}

// An accept is one entry of an Accept header.
type accept struct {
	media  string
	params map[string]string
	q      float64
}

// accepts reads the Accept header, the most wanted first.
func accepts(r *http.Request) (all []accept) {
	for _, header := range r.Header.Values("Accept") {
		for part := range strings.SplitSeq(header, ",") {
			media, params, err := mime.ParseMediaType(strings.TrimSpace(part))
			if err != nil {
				// The types of OpenAPI documents have an @, which is not allowed.
				media, _, _ = strings.Cut(strings.TrimSpace(part), ";")
			}
			q := 1.0
			if v, ok := params["q"]; ok {
				if q, err = strconv.ParseFloat(v, 64); err != nil {
					continue
				}
			}
			all = append(all, accept{media, params, q})
		}
	}
	slices.SortStableFunc(all, func(a, b accept) int {
		switch {
		case a.q > b.q:
			return -1
		case a.q < b.q:
			return 1
		}
		return 0
	})
	return all
}

// media returns which of the offered types an accepted one stands for.
func (a accept) of(offered []string) (string, bool) {
	if a.media == "*/*" || a.media == "application/*" {
		return offered[0], true
	}
	i := slices.Index(offered, a.media)
	if i < 0 {
		return "", false
	}
	return offered[i], true
}

// everyMedia are the encodings of objects, the one to use unasked first.
var everyMedia = []string{wire.JSON, wire.YAML, wire.Protobuf}

// An offer is what a request could be answered with.
type offer struct {
	media   []string
	whole   []string // the media of whole objects, where they are fewer
	shapes  []shape
	streams bool // there is a watch at the same path
}

// negotiate chooses the format for the answer to r.
func negotiate(r *http.Request, o offer) (format, error) {
	pretty := prettyWanted(r)
	all := accepts(r)
	if o.whole == nil {
		o.whole = o.media
	}
	if len(all) == 0 {
		return format{media: o.media[0], pretty: pretty}, nil
	}
	known := false
	for _, a := range all {
		if _, ok := a.of(everyMedia); ok {
			known = true
		}
		media, ok := a.of(o.media)
		if !ok {
			continue
		}
		s := shape(a.params["as"])
		if s == whole {
			if media, ok = a.of(o.whole); !ok {
				continue
			}
			return format{media: media, pretty: pretty}, nil
		}
		version := a.params["v"]
		known := a.params["g"] == metav1.GroupName && (version == "v1" || version == "v1beta1")
		if !known || !slices.Contains(o.shapes, s) || s == asTable && media == wire.Protobuf {
			continue
		}
		return format{media: media, shape: s, group: metav1.GroupName + "/" + version, pretty: pretty}, nil
	}
	switch {
	case !known:
		return format{}, unknownMedia(o.streams)
	case o.streams && len(o.media) == len(streamMedia):
		return format{}, notAcceptable(streamMedia)
	}
	return format{}, notAcceptable(o.whole)
}

// prettyWanted is for people: they use a browser or curl, or ask.
func prettyWanted(r *http.Request) bool {
	if v := r.URL.Query().Get("pretty"); v != "" {
		yes, err := strconv.ParseBool(v)
		return err == nil && yes
	}
	agent := r.UserAgent()
	return strings.HasPrefix(agent, "curl") || strings.HasPrefix(agent, "Wget") || strings.HasPrefix(agent, "Mozilla/5.0")
}

func notAcceptable(media []string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusNotAcceptable, Reason: metav1.StatusReasonNotAcceptable,
		Message: "only the following media types are accepted: " + strings.Join(media, ", "),
	}}
}

// streamMedia are the encodings of watches.
var streamMedia = []string{wire.JSON + ";stream=watch", wire.Protobuf + ";stream=watch"}

// unknownMedia is the error where nothing is accepted that any object comes
// in. Upstream says it in the words of the router, not its own.
func unknownMedia(streams bool) error {
	media := everyMedia
	if streams {
		media = slices.Concat(everyMedia, streamMedia)
	}
	return plain(http.StatusNotAcceptable, metav1.StatusReasonNotAcceptable,
		"406: Not Acceptable\n\nAvailable representations: "+strings.Join(media, ", "))
}

// contentType returns which of the accepted types a body is in.
func contentType(r *http.Request, accepted []string) (string, error) {
	header := r.Header.Get("Content-Type")
	if header == "" {
		return accepted[0], nil
	}
	media, _, err := mime.ParseMediaType(header)
	if err != nil || !slices.Contains(accepted, media) {
		return "", unsupported(accepted)
	}
	return media, nil
}

func unsupported(accepted []string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusUnsupportedMediaType, Reason: metav1.StatusReasonUnsupportedMediaType,
		Message: "the body of the request was in an unknown format - accepted media types include: " + strings.Join(accepted, ", "),
	}}
}
