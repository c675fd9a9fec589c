package wire_test

import (
	"bytes"
	"encoding/json"
	"io"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/randfill"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/registry/wire"
)

var pods = wire.NewKind(corev1.SchemeGroupVersion.WithKind("Pod"), func() apis.Object { return &corev1.Pod{} })

// upstream is the serializer of stock clients.
var upstream = protobuf.NewSerializer(scheme.Scheme, scheme.Scheme)

func random(t *testing.T, seed int64) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{}
	randfill.NewWithSeed(seed).NilChance(.6).NumElements(0, 3).MaxDepth(6).Funcs(
		func(*metav1.FieldsV1, randfill.Continue) {},
		func(m *metav1.ManagedFieldsEntry, _ randfill.Continue) { *m = metav1.ManagedFieldsEntry{Manager: "m"} },
	).Fill(pod)
	pod.TypeMeta, pod.ResourceVersion = metav1.TypeMeta{}, ""
	return pod
}

func encode(t *testing.T, pod *corev1.Pod, rev int64) *wire.Object {
	t.Helper()
	value, err := pods.Encode(pod)
	if err != nil {
		t.Fatal(err)
	}
	o, err := pods.Object(value, rev)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// TestStoredAsUpstream holds that what we store is to the byte what the
// stock server stores.
func TestStoredAsUpstream(t *testing.T) {
	for seed := range int64(50) {
		pod := random(t, seed)
		ours, err := pods.Encode(pod)
		if err != nil {
			t.Fatal(err)
		}
		pod.TypeMeta = metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"}
		var theirs bytes.Buffer
		if err := upstream.Encode(pod, &theirs); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(ours, theirs.Bytes()) {
			t.Fatalf("seed %d:\n%x\n%x", seed, ours, theirs.Bytes())
		}
	}
}

func decode(t *testing.T, data []byte) runtime.Object {
	t.Helper()
	obj, _, err := upstream.Decode(data, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return obj
}

// TestProto holds that a stock client reads our protobuf, with the
// resourceVersion, alone, in a list and in a watch event.
// TestMarshal holds that what is not stored goes out as the stock server's.
func TestMarshal(t *testing.T) {
	pod := random(t, 3)
	pod.TypeMeta = metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"}
	status := &metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Message: "no", Code: 404}
	for _, obj := range []runtime.Object{pod, status, &corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, Items: []corev1.Pod{*pod}}} {
		ours, err := wire.Marshal(wire.Protobuf, obj, false)
		if err != nil {
			t.Fatal(err)
		}
		var theirs bytes.Buffer
		if err := upstream.Encode(obj, &theirs); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(ours, theirs.Bytes()) {
			t.Errorf("%T:\n%x\n%x", obj, ours, theirs.Bytes())
		}
	}
	if _, err := wire.Marshal(wire.Protobuf, &metav1.Table{}, false); err == nil {
		t.Error("a table has no protobuf form")
	}
}

func TestProto(t *testing.T) {
	var items []byte
	var want corev1.PodList
	for seed := range int64(20) {
		pod := random(t, seed)
		o := encode(t, pod, 1000+seed)
		pod.ResourceVersion = strconv.FormatInt(1000+seed, 10)
		alone := o.AppendProto(nil)
		if len(alone) != o.ProtoLen() {
			t.Errorf("ProtoLen %d of %d bytes", o.ProtoLen(), len(alone))
		}
		if diff := cmp.Diff(decode(t, encodeUpstream(t, pod)), decode(t, alone)); diff != "" {
			t.Fatal(diff)
		}
		before := len(items)
		items = o.AppendItem(items)
		if len(items)-before != o.ItemLen() {
			t.Errorf("ItemLen %d of %d bytes", o.ItemLen(), len(items)-before)
		}
		want.Items = append(want.Items, *decode(t, alone).(*corev1.Pod))
		want.Items[seed].TypeMeta = metav1.TypeMeta{}

		frame := o.AppendEventFrame(nil, "ADDED")
		var event metav1.WatchEvent
		body := make([]byte, len(frame))
		n, err := protobuf.LengthDelimitedFramer.NewFrameReader(io.NopCloser(bytes.NewReader(frame))).Read(body)
		if err != nil {
			t.Fatal(err)
		}
		if err := event.Unmarshal(body[:n]); err != nil || event.Type != "ADDED" || !bytes.Equal(event.Object.Raw, alone) {
			t.Errorf("event %v: %v", event, err)
		}
	}
	left := int64(7)
	want.ListMeta = metav1.ListMeta{ResourceVersion: "2000", Continue: "abc", RemainingItemCount: &left}
	want.TypeMeta = metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}
	list := pods.ListOpen(wire.ListMeta{Rev: 2000, Continue: "abc", Remaining: &left}, len(items))
	list = append(append(list, items...), wire.ListEnd()...)
	if diff := cmp.Diff(&want, decode(t, list)); diff != "" {
		t.Error(diff)
	}
}

func encodeUpstream(t *testing.T, pod *corev1.Pod) []byte {
	t.Helper()
	pod.TypeMeta = metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"}
	var b bytes.Buffer
	if err := upstream.Encode(pod, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestJSON(t *testing.T) {
	pod := &corev1.Pod{Spec: corev1.PodSpec{NodeName: "n"}}
	pod.Name = "a"
	o := encode(t, pod, 42)
	item, made, err := o.JSON()
	if err != nil || !made {
		t.Fatalf("made %v: %v", made, err)
	}
	var got corev1.Pod
	if err := json.Unmarshal(pods.AppendJSON(nil, item), &got); err != nil {
		t.Fatal(err)
	}
	if got.Kind != "Pod" || got.APIVersion != "v1" || got.ResourceVersion != "42" || got.Spec.NodeName != "n" {
		t.Errorf("got %v", got)
	}
	if _, again, _ := o.JSON(); again {
		t.Error("made twice")
	}
	if o.DropJSON() != len(item) || o.HasJSON() {
		t.Error("dropped JSON is still there")
	}
	open := pods.JSONListOpen(wire.ListMeta{Rev: 5, Continue: "x"})
	var list corev1.PodList
	if err := json.Unmarshal(append(append(open, item...), "]}"...), &list); err != nil || list.Items[0].Name != "a" || list.Continue != "x" || list.ResourceVersion != "5" || list.Kind != "PodList" {
		t.Errorf("list %v: %v", list, err)
	}
}

func TestLabels(t *testing.T) {
	pod := &corev1.Pod{}
	pod.Labels = map[string]string{"app": "web", "empty": "", "k8s.io/x": "y"}
	ls := encode(t, pod, 1).Labels()
	if len(ls) != 3 || ls.Get("app") != "web" || !ls.Has("empty") || ls.Get("k8s.io/x") != "y" || ls.Has("no") {
		t.Errorf("labels %v", ls)
	}
}

// FuzzObject feeds what a damaged store might hold.
func FuzzObject(f *testing.F) {
	value, err := pods.Encode(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{"b": "c"}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(value)
	f.Add([]byte("k8s\x00"))
	f.Fuzz(func(_ *testing.T, data []byte) {
		o, err := pods.Object(data, 1)
		if err != nil {
			return
		}
		o.Labels()
		if _, err := o.Decode(); err != nil {
			return
		}
	})
}
