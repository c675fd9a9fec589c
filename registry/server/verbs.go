package server

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	listvalidation "k8s.io/apimachinery/pkg/apis/meta/internalversion/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/registry"
	"github.com/knarr-dev/knarr/registry/cache"
	"github.com/knarr-dev/knarr/registry/patch"
	"github.com/knarr-dev/knarr/registry/rest"
	"github.com/knarr-dev/knarr/registry/wire"
)

// A JSON patch may make by copying no more than a body may be, as upstream.
var _ = func() bool {
	jsonpatch.AccumulatedCopySizeLimit = maxBody
	return true
}()

// maxBody is the most bytes of a request body, as upstream.
const maxBody = 3 << 20

// objectShapes are what an object can be turned into.
var objectShapes = []shape{asTable, metaOnly, metaList}

// A deed does one verb on the objects of a form.
type deed func(*answer, *rest.Form, *registry.Request) error

// deeds are the verbs on stored objects.
var deeds = map[string]deed{
	"get": (*answer).doGet, "list": (*answer).doList, "watch": (*answer).doWatch,
	"create": (*answer).doCreate, "update": (*answer).doUpdate, "patch": (*answer).doPatch,
	"delete": (*answer).doDelete, "deletecollection": (*answer).doDeleteCollection,
}

func (a *answer) negotiate(f *rest.Form) (err error) {
	a.f, err = negotiate(a.r, offer{media: everyMedia, whole: wholeMedia(f), shapes: objectShapes})
	return err
}

// wholeMedia are the encodings of whole objects of a form: those without a Go
// type have no protobuf form.
func wholeMedia(f *rest.Form) []string {
	if f.Custom != nil {
		return []string{wire.JSON, wire.YAML}
	}
	return everyMedia
}

func (a *answer) doGet(f *rest.Form, req *registry.Request) error {
	if err := a.negotiate(f); err != nil {
		return err
	}
	o, err := f.Get(a.r.Context(), req.Namespace, req.Name, a.r.URL.Query().Get("resourceVersion"))
	if err != nil {
		return err
	}
	a.stored(f, o)
	return nil
}

func (a *answer) doList(f *rest.Form, req *registry.Request) error {
	var err error
	if a.f, err = negotiate(a.r, offer{media: everyMedia, whole: wholeMedia(f), shapes: objectShapes, streams: true}); err != nil {
		return err
	}
	opts, sel, err := a.listOptions(f, req)
	if err != nil {
		return err
	}
	objs, meta, err := f.List(a.r.Context(), sel, opts)
	if err != nil {
		return err
	}
	a.list(f, objs, meta)
	return nil
}

func (a *answer) doWatch(f *rest.Form, req *registry.Request) (err error) {
	if a.f, err = negotiateWatch(a.r, f); err != nil {
		return err
	}
	opts, sel, err := a.listOptions(f, req)
	if err != nil {
		return err
	}
	stream, err := f.Watch(a.r.Context(), sel, opts)
	if err != nil {
		return err
	}
	var timeout time.Duration
	if opts.TimeoutSeconds != nil {
		timeout = time.Duration(*opts.TimeoutSeconds) * time.Second
	}
	a.watch(f, stream, timeout)
	return nil
}

// negotiateWatch is negotiate for streams, which there are none of in YAML.
func negotiateWatch(r *http.Request, of *rest.Form) (format, error) {
	media := []string{wire.JSON, wire.Protobuf}
	whole := media
	if of.Custom != nil {
		whole = media[:1]
	}
	f, err := negotiate(r, offer{media: media, whole: whole, shapes: objectShapes, streams: true})
	if err != nil {
		return format{}, err
	}
	if f.shape == metaList {
		f.shape = metaOnly
	}
	return f, nil
}

// listOptions reads and validates the query of a list or watch.
func (a *answer) listOptions(f *rest.Form, req *registry.Request) (*metav1.ListOptions, cache.Selection, error) {
	sel := cache.Selection{Namespace: req.Namespace}
	var opts metav1.ListOptions
	query := a.r.URL.Query()
	if err := metav1.Convert_url_Values_To_v1_ListOptions(&query, &opts, nil); err != nil {
		return nil, sel, apierrors.NewBadRequest(err.Error())
	}
	opts.Watch = req.Verb == "watch"
	var err error
	if sel.Labels, err = labels.Parse(opts.LabelSelector); err != nil {
		return nil, sel, apierrors.NewBadRequest(err.Error())
	}
	if sel.Fields, err = f.FieldSelector(opts.FieldSelector); err != nil {
		return nil, sel, apierrors.NewBadRequest(err.Error())
	}
	if name := req.Name; name != "" && sel.Fields.Empty() {
		// The old form of watching one object.
		sel.Fields = fields.OneTermEqualSelector("metadata.name", name)
	}
	internal := internalversion.ListOptions{
		LabelSelector: sel.Labels, FieldSelector: sel.Fields, Watch: opts.Watch, AllowWatchBookmarks: opts.AllowWatchBookmarks,
		ResourceVersion: opts.ResourceVersion, ResourceVersionMatch: opts.ResourceVersionMatch, TimeoutSeconds: opts.TimeoutSeconds,
		Limit: opts.Limit, Continue: opts.Continue, SendInitialEvents: opts.SendInitialEvents,
	}
	if opts.Watch && opts.SendInitialEvents == nil && opts.ResourceVersionMatch == "" && (opts.ResourceVersion == "" || opts.ResourceVersion == "0") {
		// As upstream: such a watch is taken for one that asks for what there is.
		internal.SendInitialEvents, internal.ResourceVersionMatch = new(true), metav1.ResourceVersionMatchNotOlderThan
	}
	if errs := listvalidation.ValidateListOptions(&internal, true); len(errs) > 0 {
		return nil, sel, apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: "ListOptions"}, "", errs)
	}
	return &opts, sel, nil
}

// call reads what all writes have in common from a request. Options are
// validated by the given func once manager and dryRun are in them.
func (a *answer) call(req *registry.Request, dryRun []string, manager string) *rest.Call {
	if manager == "" {
		manager = req.Manager()
	}
	return &rest.Call{
		Namespace: req.Namespace, Name: req.Name, Sub: req.Sub,
		DryRun: len(dryRun) > 0, Manager: manager,
	}
}

// badOptions is the error of options that are not valid, nil if they are.
func badOptions(kind string, errs field.ErrorList) error {
	if len(errs) == 0 {
		return nil
	}
	return apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: kind}, "", errs)
}

func (a *answer) doCreate(f *rest.Form, req *registry.Request) error {
	if err := a.negotiate(f); err != nil {
		return err
	}
	opts, err := a.createOptions()
	if err != nil {
		return err
	}
	obj, err := a.decode(opts.FieldValidation, f.Wire)
	if err != nil {
		return err
	}
	c := a.call(req, opts.DryRun, opts.FieldManager)
	c.Options = opts
	w, err := f.Create(a.r.Context(), c, obj)
	if err != nil {
		return err
	}
	a.made(f, http.StatusCreated, w)
	return nil
}

func (a *answer) createOptions() (*metav1.CreateOptions, error) {
	opts := &metav1.CreateOptions{}
	query := a.r.URL.Query()
	if err := metav1.Convert_url_Values_To_v1_CreateOptions(&query, opts, nil); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	opts.TypeMeta = metav1.TypeMeta{Kind: "CreateOptions", APIVersion: "meta.k8s.io/v1"}
	return opts, badOptions("CreateOptions", validation.ValidateCreateOptions(opts))
}

func (a *answer) doUpdate(f *rest.Form, req *registry.Request) error {
	if err := a.negotiate(f); err != nil {
		return err
	}
	opts, err := a.updateOptions()
	if err != nil {
		return err
	}
	obj, err := a.decode(opts.FieldValidation, f.Wire)
	if err != nil {
		return err
	}
	if obj.GetName() == "" {
		return apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s based on URL) was undeterminable: name must be provided", req.Name))
	}
	c := a.call(req, opts.DryRun, opts.FieldManager)
	c.Options = opts
	w, err := f.Update(a.r.Context(), c, obj)
	if err != nil {
		return err
	}
	a.made(f, madeOr(w), w)
	return nil
}

func (a *answer) updateOptions() (*metav1.UpdateOptions, error) {
	opts := &metav1.UpdateOptions{}
	query := a.r.URL.Query()
	if err := metav1.Convert_url_Values_To_v1_UpdateOptions(&query, opts, nil); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	opts.TypeMeta = metav1.TypeMeta{Kind: "UpdateOptions", APIVersion: "meta.k8s.io/v1"}
	return opts, badOptions("UpdateOptions", validation.ValidateUpdateOptions(opts))
}

// madeOr is 201 where a write has made the object.
func madeOr(w rest.Written) int {
	if w.Created {
		return http.StatusCreated
	}
	return http.StatusOK
}

// patchTypes are the kinds of patch that built-in kinds take.
var patchTypes = []string{
	string(types.JSONPatchType), string(types.MergePatchType), string(types.StrategicMergePatchType), string(types.ApplyPatchType),
}

// customPatchTypes are those that kinds without a Go type take: only that
// says how to merge strategically.
var customPatchTypes = []string{string(types.JSONPatchType), string(types.MergePatchType), string(types.ApplyPatchType)}

func (a *answer) doPatch(f *rest.Form, req *registry.Request) error {
	if err := a.negotiate(f); err != nil {
		return err
	}
	p, c, err := a.patch(f, req)
	if err != nil {
		return err
	}
	w, err := f.Patch(a.r.Context(), c, p)
	if err != nil {
		return err
	}
	a.made(f, madeOr(w), w)
	return nil
}

// patch reads a patch and its options.
func (a *answer) patch(f *rest.Form, req *registry.Request) (*patch.Patch, *rest.Call, error) {
	taken := patchTypes
	if f.Custom != nil {
		taken = customPatchTypes
	}
	media, err := contentType(a.r, append([]string{""}, taken...))
	if f.Custom != nil && (err != nil || media == "") {
		return nil, nil, unsupported(taken)
	}
	if err != nil || media == "" {
		// Upstream says it in the words of the router, not its own.
		return nil, nil, plain(http.StatusUnsupportedMediaType, metav1.StatusReasonUnsupportedMediaType, "415: Unsupported Media Type")
	}
	opts := &metav1.PatchOptions{}
	query := a.r.URL.Query()
	if err := metav1.Convert_url_Values_To_v1_PatchOptions(&query, opts, nil); err != nil {
		return nil, nil, apierrors.NewBadRequest(err.Error())
	}
	if err := badOptions("PatchOptions", validation.ValidatePatchOptions(opts, types.PatchType(media))); err != nil {
		return nil, nil, err
	}
	opts.TypeMeta = metav1.TypeMeta{Kind: "PatchOptions", APIVersion: "meta.k8s.io/v1"}
	body, err := a.bytes()
	if err != nil {
		return nil, nil, err
	}
	strict, _ := wire.ParseStrictness(opts.FieldValidation) // validated above
	p := &patch.Patch{Type: types.PatchType(media), Body: body, Strict: strict, Manager: opts.FieldManager, Force: opts.Force != nil && *opts.Force}
	c := a.call(req, opts.DryRun, opts.FieldManager)
	c.Options, c.Applied = opts, p.Type == types.ApplyPatchType
	return p, c, nil
}

func (a *answer) doDelete(f *rest.Form, req *registry.Request) error {
	if err := a.negotiate(f); err != nil {
		return err
	}
	opts, err := a.deleteOptions(f)
	if err != nil {
		return err
	}
	c := a.call(req, opts.DryRun, "")
	c.Options = opts
	w, err := f.Delete(a.r.Context(), c, opts)
	if err != nil {
		return err
	}
	code := http.StatusOK
	if !w.Gone && opts.OrphanDependents != nil && !*opts.OrphanDependents { //nolint:staticcheck // deprecated, and still in use
		code = http.StatusAccepted // the client has asked to wait for dependents
	}
	if w.Gone && !f.Lifetime.ReturnsDeleted {
		a.f.shape = whole
		a.send(code, deleted(f, req.Name, w.Object.GetUID()))
		return nil
	}
	a.made(f, code, w)
	return nil
}

// deleted is the Status that tells of a deletion.
func deleted(f *rest.Form, name string, uid types.UID) *metav1.Status {
	return &metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusSuccess,
		Details: &metav1.StatusDetails{Name: name, Group: f.Wire.Group, Kind: f.Plural, UID: uid},
	}
}

func (a *answer) doDeleteCollection(f *rest.Form, req *registry.Request) error {
	if err := a.negotiate(f); err != nil {
		return err
	}
	list, sel, err := a.listOptions(f, req)
	if err != nil {
		return err
	}
	opts, err := a.deleteOptions(f)
	if err != nil {
		return err
	}
	c := a.call(req, opts.DryRun, "")
	c.Options = opts
	objs, rev, err := f.DeleteCollection(a.r.Context(), c, sel, list, opts)
	if err != nil {
		return err
	}
	a.list(f, objs, wire.ListMeta{Rev: rev})
	return nil
}

// deleteOptions reads the options of a deletion from the body, or without
// one from the query. It warns of what they leave open.
func (a *answer) deleteOptions(f *rest.Form) (*metav1.DeleteOptions, error) {
	opts := &metav1.DeleteOptions{}
	body, err := a.bytes()
	if err != nil {
		return nil, err
	}
	if len(body) > 0 {
		media, err := contentType(a.r, everyMedia)
		if err != nil {
			return nil, err
		}
		if err := wire.DecodeOptions(media, body, opts); err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
	} else {
		query := a.r.URL.Query()
		if err := metav1.Convert_url_Values_To_v1_DeleteOptions(&query, opts, nil); err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
	}
	if err := badOptions("DeleteOptions", validation.ValidateDeleteOptions(opts)); err != nil {
		return nil, err
	}
	if opts.GracePeriodSeconds != nil && *opts.GracePeriodSeconds < 0 {
		opts.GracePeriodSeconds = new(int64(1)) // as upstream
	}
	if w := f.Lifetime.OrphansWarning; w != "" && opts.PropagationPolicy == nil && opts.OrphanDependents == nil { //nolint:staticcheck // deprecated, and still in use
		registry.Warn(a.r.Context(), w)
	}
	opts.TypeMeta = metav1.TypeMeta{Kind: "DeleteOptions", APIVersion: "meta.k8s.io/v1"}
	return opts, nil
}

// trusted is how much of a body room is made for before it comes.
const trusted = 64 << 10

// bytes reads the whole body, up to a limit.
func (a *answer) bytes() ([]byte, error) {
	buf := &bytes.Buffer{}
	if n := a.r.ContentLength; n > 0 {
		buf.Grow(int(min(n, trusted)) + bytes.MinRead) // so that the end is found without growing
	}
	_, err := buf.ReadFrom(http.MaxBytesReader(a.w, a.r.Body, maxBody))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("limit is %d", maxBody))
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, apierrors.NewTimeoutError("request did not complete within requested timeout - the body has not come", 0)
	}
	if err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("read body: %v", err))
	}
	return buf.Bytes(), nil
}

// decode reads an object from the body, of one of the kinds given. What is
// wrong with it is said of the first.
func (a *answer) decode(fieldValidation string, kinds ...*wire.Kind) (apis.Object, error) {
	taken := everyMedia
	if kinds[0].IsCustom() {
		taken = []string{wire.JSON, wire.YAML}
	}
	media, err := contentType(a.r, taken)
	if err != nil {
		return nil, err
	}
	body, err := a.bytes()
	if err != nil {
		return nil, err
	}
	strict, _ := wire.ParseStrictness(fieldValidation) // validated before
	for _, k := range kinds {
		obj, warnings, derr := k.Decode(media, body, strict)
		if derr == nil {
			registry.Warn(a.r.Context(), warnings...)
			return obj, nil
		}
		if err == nil {
			err = derr
		}
	}
	return nil, err
}

// timeoutOf reads how long the client wants to wait at the most.
func timeoutOf(query url.Values, most time.Duration) (time.Duration, error) {
	text := query.Get("timeout")
	if text == "" {
		return most, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		seconds, serr := strconv.Atoi(strings.TrimSpace(text))
		if serr != nil {
			return 0, apierrors.NewBadRequest(fmt.Sprintf("invalid timeout specified in the request URL - %v", err))
		}
		d = time.Duration(seconds) * time.Second
	}
	if d <= 0 || d > most {
		return most, nil
	}
	return d, nil
}
