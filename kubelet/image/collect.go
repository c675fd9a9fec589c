package image

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// A Store is what this package needs of the runtime to remove images.
type Store interface {
	ListImages(ctx context.Context) ([]*runtimeapi.Image, error)
	RemoveImage(ctx context.Context, image *runtimeapi.ImageSpec) error
	ImageFilesystems(ctx context.Context) ([]*runtimeapi.FilesystemUsage, error)
	ListContainers(ctx context.Context, uid string) ([]*runtimeapi.Container, error)
}

// A Policy says when images that nobody uses go. Percentages are of the file
// system that they are on.
type Policy struct {
	High, Low int64         // above High remove down to Low; 85 and 80 where zero
	MinAge    time.Duration // since an image was last used, or first seen; 2 minutes where zero
	MaxAge    time.Duration // since then they go though there is room; never where zero
}

// interval is how often it is looked whether images must go.
const interval = 5 * time.Minute

// Collect names the images to remove, the one unused for longest first: as many
// as give back need bytes, and those that are too old. used says when each was
// last used or first seen.
func Collect(have []*runtimeapi.Image, used map[string]time.Time, inUse map[string]bool, need uint64, p Policy, now time.Time) (remove []string) {
	idle := slices.DeleteFunc(slices.Clone(have), func(im *runtimeapi.Image) bool { return im.Pinned || inUse[im.Id] })
	slices.SortFunc(idle, func(a, b *runtimeapi.Image) int {
		return cmp.Or(used[a.Id].Compare(used[b.Id]), cmp.Compare(a.Id, b.Id))
	})
	var freed uint64
	for _, im := range idle {
		age := now.Sub(used[im.Id])
		if p.MaxAge > 0 && age > p.MaxAge || freed < need && age >= p.MinAge {
			remove = append(remove, im.Id)
			freed += im.Size
		}
	}
	return remove
}

// Run removes images that nobody uses when there is little room, until ctx ends.
func (k *Keeper) Run(ctx context.Context, s Store, p Policy) {
	p.High, p.Low, p.MinAge = cmp.Or(p.High, 85), cmp.Or(p.Low, 80), cmp.Or(p.MinAge, 2*time.Minute)
	used := map[string]time.Time{}
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		if err := k.collect(ctx, s, p, used); err != nil && ctx.Err() == nil {
			slog.WarnContext(ctx, "remove images", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

func (k *Keeper) collect(ctx context.Context, s Store, p Policy, used map[string]time.Time) error {
	have, err := s.ListImages(ctx)
	if err != nil {
		return fmt.Errorf("list images: %w", err)
	}
	containers, err := s.ListContainers(ctx, "")
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	now := time.Now()
	inUse := map[string]bool{}
	for _, c := range containers {
		inUse[c.ImageId], inUse[c.ImageRef] = true, true
	}
	seen := map[string]bool{}
	for _, im := range have {
		seen[im.Id] = true
		if _, known := used[im.Id]; !known || inUse[im.Id] {
			used[im.Id] = now
		}
	}
	for id := range used {
		if !seen[id] {
			delete(used, id)
			k.forget(id)
		}
	}
	need, err := excess(ctx, s, p)
	if err != nil {
		return err
	}
	for _, id := range Collect(have, used, inUse, need, p, now) {
		if err := s.RemoveImage(ctx, &runtimeapi.ImageSpec{Image: id}); err != nil {
			return fmt.Errorf("remove image %s: %w", id, err)
		}
		delete(used, id)
		k.forget(id)
	}
	return nil
}

// excess is how many bytes must go from the fullest of the images' file systems.
func excess(ctx context.Context, s Store, p Policy) (need uint64, err error) {
	list, err := s.ImageFilesystems(ctx)
	if err != nil {
		return 0, fmt.Errorf("find the images' file system: %w", err)
	}
	for _, f := range list {
		var st unix.Statfs_t
		if err := unix.Statfs(f.GetFsId().GetMountpoint(), &st); err != nil {
			return 0, fmt.Errorf("look at the images' file system: %w", err)
		}
		size := uint64(st.Bsize)
		all, free := st.Blocks*size, st.Bavail*size
		if all > 0 && (all-free)*100/all >= uint64(p.High) {
			need = max(need, all*uint64(100-p.Low)/100-free)
		}
	}
	return need, nil
}
