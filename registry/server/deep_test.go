package server_test

import (
	"encoding/binary"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/knarr-dev/knarr/registry/registrytest"
)

// nested is a schema in protobuf that is the `not` of another, and so on.
func nested(depth int) []byte {
	var back []byte // backwards, since lengths come before what they are of
	for range depth {
		length := binary.AppendUvarint(nil, uint64(len(back)))
		slices.Reverse(length)
		back = append(append(back, length...), 0x01, 0xe2)
	}
	slices.Reverse(back)
	return back
}

// field is a field of a message.
func field(num byte, value []byte) []byte {
	return append(binary.AppendUvarint([]byte{num<<3 | 2}, uint64(len(value))), value...)
}

// What is nested as deep as a body lets it be is refused in protobuf as it is
// in JSON: to read it would take the stack, and with it the process.
func TestDeepProtobuf(t *testing.T) {
	s := registrytest.Run(t)
	const group = "apiextensions.k8s.io"
	meta := slices.Concat(field(1, []byte(group+"/v1")), field(2, []byte("CustomResourceDefinition")))
	schema := nested(500_000)
	for name, before := range map[string][]byte{
		"":                                  nil,
		"behind a group":                    {0xfb, 0x07, 0xfc, 0x07},
		"behind a number that is too large": {0xf8, 0x07, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
	} {
		version := slices.Concat(field(1, []byte("v1")), before, field(4, field(1, schema)))
		crd := slices.Concat(field(1, field(1, []byte("deeps.example.com"))), field(2, field(7, version)))
		body := slices.Concat([]byte("k8s\x00"), field(1, meta), field(2, crd))
		code, text := send(t, s, "/apis/"+group+"/v1/customresourcedefinitions", body, "Content-Type", "application/vnd.kubernetes.protobuf")
		if code != http.StatusBadRequest || !strings.Contains(text, "exceeded max depth of 10000") {
			t.Errorf("%s: %d: %.300s", name, code, text)
		}
	}
}

// What is nested nearly as deep as may be is handled like anything else.
func TestDeepSchema(t *testing.T) {
	s := registrytest.Run(t, registrytest.TLS)
	const depth = 9_900
	body := `{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"deeps.example.com"},"spec":{"group":"example.com","scope":"Cluster",` +
		`"names":{"plural":"deeps","kind":"Deep"},"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object",` +
		strings.Repeat(`"not":{`, depth) + strings.Repeat("}", depth) + "}}}]}}"
	code, text := send(t, s, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", []byte(body), "Content-Type", "application/json")
	if code != http.StatusCreated {
		t.Errorf("%d: %.300s", code, text)
	}
	works(t, s, "after")
}
