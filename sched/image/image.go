// Package image favours nodes on which the images of a pod lie already.
package image

import (
	"strings"

	"github.com/knarr-dev/knarr/sched"
)

// Plugin is the image locality plugin.
var Plugin = sched.Plugin[struct{}]{
	Name:   "ImageLocality",
	Weight: 1,
	Score:  score,
}.Erase()

// Below the first size an image is as good as not there; above the second,
// for each container, more makes no difference.
const (
	least = 23 << 20
	most  = 1000 << 20
)

// score counts the bytes that need not be fetched. An image counts the less
// the fewer nodes have it, lest all pods go where it was first.
func score(p *sched.Pod, c *sched.Cluster, nodes []*sched.Node, scores []int64) {
	names := images(p)
	all := float64(len(c.Nodes()))
	enough := int64(most * (len(p.Spec.Containers) + len(p.Spec.InitContainers)))
	for i, n := range nodes {
		var bytes int64
		for _, name := range names {
			if img := n.Images[name]; img != nil {
				bytes += int64(float64(img.Size) * (float64(img.Nodes) / all))
			}
		}
		scores[i] = 100 * (min(max(bytes, least), enough) - least) / (enough - least)
	}
}

func images(p *sched.Pod) (names []string) {
	for i := range p.Spec.InitContainers {
		names = append(names, full(p.Spec.InitContainers[i].Image))
	}
	for i := range p.Spec.Containers {
		names = append(names, full(p.Spec.Containers[i].Image))
	}
	for i := range p.Spec.Volumes {
		if v := p.Spec.Volumes[i].Image; v != nil {
			names = append(names, full(v.Reference))
		}
	}
	return names
}

// full adds the tag that is meant where there is none.
func full(name string) string {
	if strings.LastIndex(name, ":") <= strings.LastIndex(name, "/") {
		return name + ":latest"
	}
	return name
}
