//go:build linux && (amd64 || arm64)

package image

import (
	"context"
	"fmt"
	"io"
	"time"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	"github.com/containerd/containerd/api/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	criNamespace = "k8s.io"             // where containerd keeps what CRI sees
	markLabel    = "knarr.local/source" // of what an image was made
	chunk        = 1 << 20              // well below the limit of a message
)

// Import gives containerd the images that it does not have yet, as they are
// now. It returns when CRI sees them.
func Import(ctx context.Context, conn grpc.ClientConnInterface, list []Builtin) error {
	ctx = metadata.AppendToOutgoingContext(ctx, "containerd-namespace", criNamespace)
	for _, b := range list {
		if err := importOne(ctx, conn, b); err != nil {
			return fmt.Errorf("import %s: %w", b.Name, err)
		}
	}
	cri := runtimeapi.NewImageServiceClient(conn)
	for _, b := range list {
		for {
			// CRI hears of new images by an event, a moment later.
			r, err := cri.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: b.Name}})
			if err != nil {
				return fmt.Errorf("look for %s: %w", b.Name, err)
			}
			if r.GetImage() != nil {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("wait for %s: %w", b.Name, ctx.Err())
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	return nil
}

func importOne(ctx context.Context, conn grpc.ClientConnInterface, b Builtin) error {
	images := imagesapi.NewImagesClient(conn)
	old, err := images.Get(ctx, &imagesapi.GetImageRequest{Name: b.Name})
	switch {
	case err == nil && old.GetImage().GetLabels()[markLabel] == b.mark:
		return nil
	case err != nil && status.Code(err) != codes.NotFound:
		return err
	}
	image, err := b.make(ctx)
	if err != nil {
		return err
	}
	ctx, release, err := lease(ctx, conn)
	if err != nil {
		return err
	}
	defer release()
	// The labels keep containerd from collecting what the manifest refers to.
	for _, part := range []struct {
		blob
		labels map[string]string
	}{
		{image.layer, nil},
		{image.config, nil},
		{image.manifest, map[string]string{
			"containerd.io/gc.ref.content.config": image.config.Digest,
			"containerd.io/gc.ref.content.l.0":    image.layer.Digest,
		}},
	} {
		if err := put(ctx, contentapi.NewContentClient(conn), part.blob, part.labels); err != nil {
			return fmt.Errorf("write %s: %w", part.Type, err)
		}
	}
	record := &imagesapi.Image{
		Name:   b.Name,
		Labels: map[string]string{markLabel: b.mark, "io.cri-containerd.image": "managed", "io.cri-containerd.pinned": "pinned"},
		Target: &types.Descriptor{MediaType: image.manifest.Type, Digest: image.manifest.Digest, Size: image.manifest.Size},
	}
	if old.GetImage() == nil {
		_, err = images.Create(ctx, &imagesapi.CreateImageRequest{Image: record})
	} else {
		_, err = images.Update(ctx, &imagesapi.UpdateImageRequest{Image: record, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"target", "labels"}}})
	}
	return err
}

// lease keeps what is written with the context it returns until release.
func lease(ctx context.Context, conn grpc.ClientConnInterface) (leased context.Context, release func(), err error) {
	leases := leasesapi.NewLeasesClient(conn)
	r, err := leases.Create(ctx, &leasesapi.CreateRequest{Labels: map[string]string{
		"containerd.io/gc.expire": time.Now().Add(time.Hour).Format(time.RFC3339),
	}})
	if err != nil {
		return nil, nil, fmt.Errorf("lease: %w", err)
	}
	id := r.GetLease().GetID()
	release = func() {
		_, _ = leases.Delete(ctx, &leasesapi.DeleteRequest{ID: id}) // else it expires
	}
	return metadata.AppendToOutgoingContext(ctx, "containerd-lease", id), release, nil
}

// put writes a blob, unless it is there already.
func put(ctx context.Context, content contentapi.ContentClient, b blob, labels map[string]string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := content.Write(ctx)
	if err != nil {
		return err
	}
	w := &writer{stream: stream, blob: b}
	err = w.send(&contentapi.WriteContentRequest{Action: contentapi.WriteAction_STAT})
	if err == nil {
		err = b.write(w)
	}
	if err == nil {
		err = w.flush()
	}
	if err == nil {
		err = w.send(&contentapi.WriteContentRequest{Action: contentapi.WriteAction_COMMIT, Offset: w.offset, Labels: labels})
	}
	if status.Code(err) == codes.AlreadyExists {
		return nil
	}
	return err
}

// A writer sends what is written to it in chunks.
type writer struct {
	stream grpc.BidiStreamingClient[contentapi.WriteContentRequest, contentapi.WriteContentResponse]
	blob   blob
	buf    []byte
	offset int64
}

func (w *writer) Write(p []byte) (int, error) {
	w.buf = append(w.buf, p...)
	if len(w.buf) < chunk {
		return len(p), nil
	}
	return len(p), w.flush()
}

func (w *writer) flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	err := w.send(&contentapi.WriteContentRequest{Action: contentapi.WriteAction_WRITE, Offset: w.offset, Data: w.buf})
	w.offset += int64(len(w.buf))
	w.buf = w.buf[:0]
	return err
}

// send makes a request and waits for its answer.
func (w *writer) send(req *contentapi.WriteContentRequest) error {
	req.Ref, req.Total, req.Expected = "knarr-"+w.blob.Digest, w.blob.Size, w.blob.Digest
	if err := w.stream.Send(req); err != nil && err != io.EOF { //nolint:errorlint // the stream's own sentinel; the reason comes with Recv
		return err
	}
	_, err := w.stream.Recv()
	return err
}
