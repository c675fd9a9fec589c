package wire

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/json"
	"k8s.io/client-go/kubernetes/scheme"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/knarr-dev/knarr/apis"
)

// The media types of bodies.
const (
	JSON     = "application/json"
	YAML     = "application/yaml"
	Protobuf = "application/vnd.kubernetes.protobuf"
)

// Strictness says what is done about fields that are unknown or given twice.
type Strictness int

// The strictnesses.
const (
	Ignore Strictness = iota
	Tell              // as warnings
	Refuse
)

// ParseStrictness reads the fieldValidation parameter; Tell is its default.
func ParseStrictness(s string) (Strictness, bool) {
	switch s {
	case metav1.FieldValidationIgnore:
		return Ignore, true
	case metav1.FieldValidationWarn, "":
		return Tell, true
	case metav1.FieldValidationStrict:
		return Refuse, true
	}
	return 0, false
}

// Decode reads an object of kind k from a body. Its errors are bad requests
// in the words of the stock server. The warnings are for Tell only.
func (k *Kind) Decode(mediaType string, body []byte, strict Strictness) (obj apis.Object, warnings []string, err error) {
	obj = k.New()
	switch mediaType {
	case Protobuf:
		err = k.decodeProto(body, obj)
	case YAML:
		warnings, err = k.decodeYAML(body, obj, strict)
	default:
		warnings, err = k.DecodeJSON(body, obj, strict)
	}
	return obj, warnings, err
}

func (k *Kind) decodeProto(body []byte, obj apis.Object) error {
	if raw, ok := k.within(body); ok {
		return k.load(raw, obj)
	}
	var envelope runtime.Unknown
	if !bytes.HasPrefix(body, []byte(magic)) {
		return k.unrecognized(fmt.Errorf("provided data does not appear to be a protobuf message, expected prefix %v", []byte(magic)), body)
	}
	if err := envelope.Unmarshal(body[len(magic):]); err != nil {
		return k.unrecognized(err, body)
	}
	if err := k.same(envelope.TypeMeta, body); err != nil {
		return err
	}
	return k.load(envelope.Raw, obj)
}

// load reads a message that is said to be of kind k into obj.
func (k *Kind) load(raw []byte, obj apis.Object) error {
	if deep(raw) {
		return k.cannot(fmt.Errorf("exceeded max depth of %d", maxDepth))
	}
	if err := obj.(message).Unmarshal(raw); err != nil {
		return k.cannot(err)
	}
	obj.GetObjectKind().SetGroupVersionKind(k.GroupVersionKind)
	return nil
}

func (k *Kind) decodeYAML(body []byte, obj apis.Object, strict Strictness) ([]string, error) {
	data, err := yaml.YAMLToJSON(body)
	if err != nil {
		return nil, k.unrecognized(err, body)
	}
	var twice []error
	if strict != Ignore {
		// Keys that are there twice were lost on the way to JSON.
		if _, err := yaml.YAMLToJSONStrict(body); err != nil {
			twice = append(twice, err)
		}
	}
	return k.decodeJSON(data, obj, strict, source{body, twice})
}

// DecodeJSON reads JSON into obj, a new object of kind k.
func (k *Kind) DecodeJSON(data []byte, obj apis.Object, strict Strictness) (warnings []string, err error) {
	return k.decodeJSON(data, obj, strict, source{body: data})
}

// A source is what JSON was made of, and the faults found on the way.
type source struct {
	body   []byte
	faults []error
}

func (k *Kind) decodeJSON(data []byte, obj apis.Object, strict Strictness, from source) (warnings []string, err error) {
	unknown, err := k.Parse(data, obj, strict)
	if err != nil || k.codec != nil || obj.GetObjectKind().GroupVersionKind() != k.GroupVersionKind {
		// That it is of another kind is told before what is wrong with it.
		if err := k.fits(data, from.body); err != nil {
			return nil, err
		}
	}
	if err != nil {
		return nil, k.cannot(err)
	}
	obj.GetObjectKind().SetGroupVersionKind(k.GroupVersionKind)
	faults := slices.Concat(from.faults, unknown)
	if len(faults) > 0 && strict == Refuse {
		return nil, k.cannot(runtime.NewStrictDecodingError(faults))
	}
	for _, e := range faults {
		warnings = append(warnings, told(e)...)
	}
	return warnings, nil
}

// fits refuses JSON, made of body, that is of another kind.
func (k *Kind) fits(data, body []byte) error {
	meta, err := metaOf(data)
	if err != nil {
		return k.unrecognized(err, body)
	}
	if k.codec != nil && meta.Kind == "" {
		return k.unrecognized(runtime.NewMissingKindErr(string(data)), body)
	}
	if k.codec != nil && meta.APIVersion == "" {
		return k.unrecognized(runtime.NewMissingVersionErr(string(data)), body)
	}
	return k.same(meta, body)
}

// told is a fault as warnings: YAML tells all of its kind in one text.
func told(fault error) []string {
	text, many := strings.CutPrefix(fault.Error(), "yaml: unmarshal errors:\n")
	if !many {
		return []string{text}
	}
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return lines
}

// metaOf reads what JSON says it is. The type has no name of ours, since
// errors show it.
func metaOf(data []byte) (runtime.TypeMeta, error) {
	var meta struct {
		APIVersion string `json:"apiVersion,omitempty"`
		Kind       string `json:"kind,omitempty"`
	}
	if err := json.Unmarshal(data, &meta); err != nil {
		return runtime.TypeMeta{}, fmt.Errorf("couldn't get version/kind; json parse error: %w", err)
	}
	return runtime.TypeMeta(meta), nil
}

// Parse reads JSON that is known to be an object of kind k into obj, a new
// one. Unless they are to be ignored it returns what is wrong with its fields:
// that they are unknown or given twice.
func (k *Kind) Parse(data []byte, obj apis.Object, strict Strictness) (faults []error, err error) {
	switch {
	case k.codec != nil:
		return k.codec.Parse(data, obj, strict != Ignore)
	case strict == Ignore:
		return nil, kjson.UnmarshalCaseSensitivePreserveInts(data, obj)
	}
	return kjson.UnmarshalStrict(data, obj)
}

// unrecognized is the error of a body that is nothing at all.
func (k *Kind) unrecognized(err error, body []byte) error {
	return apierrors.NewBadRequest(fmt.Sprintf("the object provided is unrecognized (must be of type %s): %v (%s)",
		k.GroupVersionKind.Kind, err, glimpse(body)))
}

// glimpse is the first of a body, for an error message.
func glimpse(body []byte) string {
	const most = 30
	switch {
	case len(body) == 0:
		return "<empty>"
	case body[0] == '{' && len(body) > most:
		return string(body[:most]) + " ..."
	case body[0] == '{':
		return string(body)
	case len(body) > most:
		return hex.EncodeToString(body[:most]) + " ..."
	}
	return hex.EncodeToString(body)
}

// same refuses a body of another kind; what a body leaves out is as expected.
func (k *Kind) same(meta runtime.TypeMeta, body []byte) error {
	gvk, err := k.meant(meta)
	if err != nil {
		return k.unrecognized(err, body)
	}
	if gvk == k.GroupVersionKind {
		return nil
	}
	if err := k.Converts(gvk); err != nil {
		return apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: %v", gvk.Kind, gvk.Version, k.GroupVersionKind.Kind, err))
	}
	return apierrors.NewBadRequest(fmt.Sprintf("the API version in the data (%s) does not match the expected API version (%s)", gvk.GroupVersion(), k.GroupVersion()))
}

// meant is the kind that a body is of, by what it says of that.
func (k *Kind) meant(meta runtime.TypeMeta) (schema.GroupVersionKind, error) {
	gv, err := schema.ParseGroupVersion(meta.APIVersion)
	if meta.APIVersion == "" {
		gv = k.GroupVersion()
	}
	return gv.WithKind(cmp.Or(meta.Kind, k.GroupVersionKind.Kind)), err
}

// Converts returns why objects of a kind are not to be had as objects of k,
// in the words of the stock server; nil where k is the same in another
// version.
func (k *Kind) Converts(gvk schema.GroupVersionKind) error {
	if gvk.Kind == k.GroupVersionKind.Kind && (gvk.GroupVersion() == k.GroupVersion() || !scheme.Scheme.Recognizes(k.GroupVersionKind)) {
		return nil
	}
	other, err := scheme.Scheme.New(gvk)
	switch {
	case err != nil:
		return fmt.Errorf("no kind %q is registered for version %q in scheme %q", gvk.Kind, gvk.GroupVersion(), stockScheme)
	case gvk.Kind != k.GroupVersionKind.Kind:
		return fmt.Errorf("converting (%s) to (%s.%s): unknown conversion", strings.TrimPrefix(fmt.Sprintf("%T", other), "*"), k.Inside(), k.GroupVersionKind.Kind)
	}
	return nil
}

// Holds returns why JSON is not of kind k, or of one like it. What has no Go
// type may be anything.
func (k *Kind) Holds(data []byte) error {
	if k.codec != nil {
		return nil
	}
	meta, err := metaOf(data)
	if err != nil {
		return err
	}
	gvk, err := k.meant(meta)
	if err != nil {
		return err
	}
	return k.Converts(gvk)
}

// stockScheme is where the stock server has its types, as it tells its clients.
const stockScheme = "pkg/runtime/scheme.go:111"

// Inside is what the stock server calls the group of k among its own.
func (k *Kind) Inside() string {
	if name, _, _ := strings.Cut(k.Group, "."); name != "" && name != "events" {
		return name
	}
	return "core"
}

// cannot is the error of a body that is no object of kind k.
func (k *Kind) cannot(err error) error {
	if _, ok := errors.AsType[*apierrors.StatusError](err); ok {
		return err
	}
	return apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: %v",
		k.GroupVersionKind.Kind, k.Version, k.GroupVersionKind.Kind, err))
}

// DecodeOptions reads the options of a request from a body of the given type.
func DecodeOptions(media string, body []byte, into *metav1.DeleteOptions) error {
	switch media {
	case Protobuf:
		rest, ok := strings.CutPrefix(string(body), magic)
		if !ok {
			return errEnvelope
		}
		var envelope runtime.Unknown
		if err := envelope.Unmarshal([]byte(rest)); err != nil {
			return err
		}
		if err := options(envelope.TypeMeta); err != nil {
			return err
		}
		return into.Unmarshal(envelope.Raw)
	case YAML:
		var err error
		if body, err = yaml.YAMLToJSON(body); err != nil {
			return err
		}
	}
	meta, err := metaOf(body)
	if err != nil {
		return err
	}
	if err := options(meta); err != nil {
		return err
	}
	return kjson.UnmarshalCaseSensitivePreserveInts(body, into)
}

// options refuses what is of another kind than the options of a deletion.
func options(meta runtime.TypeMeta) error {
	if kind := cmp.Or(meta.Kind, "DeleteOptions"); kind != "DeleteOptions" {
		return fmt.Errorf("no kind %q is registered for version %q in scheme %q", kind, cmp.Or(meta.APIVersion, "v1"), stockScheme)
	}
	return nil
}
