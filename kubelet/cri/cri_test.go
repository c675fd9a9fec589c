package cri

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestCall tells errors of the runtime apart, and keeps their words.
func TestCall(t *testing.T) {
	for _, tt := range []struct {
		code        codes.Code
		kind        error
		text, plain string
	}{
		{codes.NotFound, ErrNotFound, "rpc error: code = NotFound desc = no such image", "no such image"},
		{codes.Unimplemented, ErrUnsupported, "rpc error: code = Unimplemented desc = no such image", "no such image"},
		{codes.DeadlineExceeded, context.DeadlineExceeded, "rpc error: code = DeadlineExceeded desc = no such image", "no such image"},
		{codes.Unknown, nil, "rpc error: code = Unknown desc = no such image", "no such image"},
	} {
		f := func(context.Context, string, ...grpc.CallOption) (string, error) {
			return "", status.Error(tt.code, "no such image")
		}
		_, err := call(t.Context(), time.Minute, f, "x")
		if err == nil || err.Error() != tt.text || plain(err).Error() != tt.plain {
			t.Errorf("%v: %v, plain %v", tt.code, err, plain(err))
		}
		for _, kind := range []error{ErrNotFound, ErrUnsupported, context.DeadlineExceeded} {
			if is := errors.Is(tt.kind, kind); errors.Is(err, kind) != is || errors.Is(plain(err), kind) != is {
				t.Errorf("%v is %v: %v", tt.code, kind, errors.Is(err, kind))
			}
		}
	}
	if plain(nil) != nil {
		t.Error("no error became one")
	}
}
