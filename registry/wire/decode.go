package wire

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/json"
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
	var envelope runtime.Unknown
	if !strings.HasPrefix(string(body), magic) {
		return k.unrecognized(fmt.Errorf("provided data does not appear to be a protobuf message, expected prefix %v", []byte(magic)), body)
	}
	if err := envelope.Unmarshal(body[len(magic):]); err != nil {
		return k.unrecognized(err, body)
	}
	if err := k.same(envelope.TypeMeta.APIVersion, envelope.TypeMeta.Kind); err != nil {
		return err
	}
	if err := obj.(message).Unmarshal(envelope.Raw); err != nil {
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
	return k.decodeJSON(data, obj, strict, twice)
}

// DecodeJSON reads JSON into obj, a new object of kind k.
func (k *Kind) DecodeJSON(data []byte, obj apis.Object, strict Strictness) (warnings []string, err error) {
	return k.decodeJSON(data, obj, strict, nil)
}

// decodeJSON reads JSON in which the given faults have been found already.
func (k *Kind) decodeJSON(data []byte, obj apis.Object, strict Strictness, faults []error) (warnings []string, err error) {
	var meta metav1.TypeMeta
	if err := json.Unmarshal(data, &meta); err != nil {
		return nil, k.unrecognized(fmt.Errorf("couldn't get version/kind; json parse error: %w", err), data)
	}
	if k.codec != nil && meta.Kind == "" {
		return nil, k.unrecognized(runtime.NewMissingKindErr(string(data)), data)
	}
	if k.codec != nil && meta.APIVersion == "" {
		return nil, k.unrecognized(runtime.NewMissingVersionErr(string(data)), data)
	}
	if err := k.same(meta.APIVersion, meta.Kind); err != nil {
		return nil, err
	}
	unknown, err := k.Parse(data, obj, strict)
	if err != nil {
		return nil, k.cannot(err)
	}
	obj.GetObjectKind().SetGroupVersionKind(k.GroupVersionKind)
	faults = append(faults, unknown...)
	if len(faults) > 0 && strict == Refuse {
		return nil, k.cannot(runtime.NewStrictDecodingError(faults))
	}
	for _, e := range faults {
		warnings = append(warnings, e.Error())
	}
	return warnings, nil
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
func (k *Kind) same(apiVersion, kind string) error {
	if apiVersion == "" && kind == "" {
		return nil
	}
	gv, err := schema.ParseGroupVersion(apiVersion)
	if err != nil {
		return k.cannot(err)
	}
	if apiVersion == "" {
		gv = k.GroupVersion()
	}
	if gv != k.GroupVersion() {
		return apierrors.NewBadRequest(fmt.Sprintf("the API version in the data (%s) does not match the expected API version (%s)", gv, k.GroupVersion()))
	}
	if kind != "" && kind != k.GroupVersionKind.Kind {
		return apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: %s",
			kind, gv.Version, k.GroupVersionKind.Kind, "the kind in the request body is not the kind of the resource"))
	}
	return nil
}

// cannot is the error of a body that is no object of kind k.
func (k *Kind) cannot(err error) error {
	if _, ok := errors.AsType[*apierrors.StatusError](err); ok {
		return err
	}
	return apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: %v",
		k.GroupVersionKind.Kind, k.Version, k.GroupVersionKind.Kind, err))
}

// DecodeOptions reads the options of a request, or another object that is not
// stored, from a body of the given type.
func DecodeOptions(media string, body []byte, into runtime.Object) error {
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
		m, ok := into.(interface{ Unmarshal(data []byte) error })
		if !ok {
			return fmt.Errorf("%T has no protobuf form", into)
		}
		return m.Unmarshal(envelope.Raw)
	case YAML:
		return yaml.Unmarshal(body, into)
	}
	return kjson.UnmarshalCaseSensitivePreserveInts(body, into)
}
