package cri

import (
	"context"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Images are the images that the runtime has. To remove one that is not there
// is no error.
type Images interface {
	// PullImage returns a reference by which the image can be run. It has no
	// limit of its own: the context's is it.
	PullImage(ctx context.Context, image *runtimeapi.ImageSpec, auth *runtimeapi.AuthConfig, box *runtimeapi.PodSandboxConfig) (ref string, err error)
	// ImageStatus is nil where the image is not there.
	ImageStatus(ctx context.Context, image *runtimeapi.ImageSpec) (*runtimeapi.Image, error)
	ListImages(ctx context.Context) ([]*runtimeapi.Image, error)
	RemoveImage(ctx context.Context, image *runtimeapi.ImageSpec) error
	// ImageFilesystems are those that images lie on.
	ImageFilesystems(ctx context.Context) ([]*runtimeapi.FilesystemUsage, error)
}

// PullImage implements Images.
func (c *Client) PullImage(ctx context.Context, image *runtimeapi.ImageSpec, auth *runtimeapi.AuthConfig, box *runtimeapi.PodSandboxConfig) (string, error) {
	r, err := call(ctx, forever, c.Image.PullImage, &runtimeapi.PullImageRequest{Image: image, Auth: auth, SandboxConfig: box})
	return r.GetImageRef(), err
}

// ImageStatus implements Images.
func (c *Client) ImageStatus(ctx context.Context, image *runtimeapi.ImageSpec) (*runtimeapi.Image, error) {
	r, err := call(ctx, patience, c.Image.ImageStatus, &runtimeapi.ImageStatusRequest{Image: image})
	return r.GetImage(), gone(err)
}

// ListImages implements Images.
func (c *Client) ListImages(ctx context.Context) ([]*runtimeapi.Image, error) {
	r, err := call(ctx, patience, c.Image.ListImages, &runtimeapi.ListImagesRequest{})
	return r.GetImages(), err
}

// RemoveImage implements Images.
func (c *Client) RemoveImage(ctx context.Context, image *runtimeapi.ImageSpec) error {
	_, err := call(ctx, patience, c.Image.RemoveImage, &runtimeapi.RemoveImageRequest{Image: image})
	return gone(err)
}

// ImageFilesystems implements Images.
func (c *Client) ImageFilesystems(ctx context.Context) ([]*runtimeapi.FilesystemUsage, error) {
	r, err := call(ctx, patience, c.Image.ImageFsInfo, &runtimeapi.ImageFsInfoRequest{})
	return r.GetImageFilesystems(), err
}
