package tree

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// layers says who may import whom: what is not said is forbidden, among the
// packages of one layer too. A name ends in /... where it stands for all
// below it as well; of several that fit, an exact one counts, else the longest.
const layers = `
apis/...               : apis/...
registry/...           : apis/... registry/...
registry/registrytest  : apis/... registry/...
sched                  : apis/...
sched/...              : apis/... sched
sched/all              : apis/... sched sched/...
sched/loop             : apis/... sched
ctrl                   : apis/...
ctrl/...               : apis/... ctrl
ctrl/all               : ctrl ctrl/...
ctrl/engine            : apis/... ctrl
ctrl/engine/sweep      : apis/... ctrl ctrl/engine ctrl/...
ctrl/livetest          : apis/... ctrl ctrl/all ctrl/engine ctrl/engine/sweep ctrl/...
kubelet                : apis/...
kubelet/...            : apis/... kubelet
kubelet/cri/...        : kubelet/cri/...
kubelet/pod            : apis/...
kubelet/run            : apis/... kubelet kubelet/... kubelet/cri/... kubelet/pod
proxy/lb               : apis/...
proxy/network          : apis/...
proxy/dns              : apis/...
proxy/lbtest           : proxy/lb
proxy/proxytest        :
proxy/datapath         : proxy/lb
proxy/run              : apis/... proxy/lb proxy/datapath proxy/network
conformance/...        : apis/... conformance/...
cmd/...                : *
`

// The packages that decide, those that look so by name and are not, and what
// the first may not import.
var (
	pure  = regexp.MustCompile(`^(apis(/[a-z]+)?|sched(/[a-z]+)?|ctrl(/[a-z]+)?|kubelet/pod|proxy/lb)$`)
	loops = regexp.MustCompile(`^(ctrl/(engine|ctrltest)|sched/(loop|schedtest))$`)
	acts  = regexp.MustCompile(`^(net/http|os|os/.*|io/ioutil|log|log/slog|math/rand.*|google\.golang\.org/grpc.*|go\.etcd\.io/.*|github\.com/cilium/ebpf.*)$`)
)

// imports holds packages to the given layers.
func imports(layers string) rule {
	may := map[string][]string{}
	for line := range strings.Lines(strings.TrimSpace(layers)) {
		who, whom, _ := strings.Cut(line, ":")
		may[strings.TrimSpace(who)] = strings.Fields(whom)
	}
	return func(p *pkg) (faults []string) {
		from := layer(may, p.path)
		if from == "" {
			return []string{"stands in no layer"}
		}
		for _, im := range p.imports {
			if im, local := strings.CutPrefix(im, module); local && !allowed(may, from, im) {
				faults = append(faults, fmt.Sprintf("may not import %s: %s may import %v", im, from, may[from]))
			}
		}
		// A test may also import what is there for tests, whoever's it is.
		for _, im := range p.testImports {
			im, local := strings.CutPrefix(im, module)
			if local && im != p.path && !strings.HasSuffix(im, "test") && !allowed(may, from, im) {
				faults = append(faults, "tests may not import "+im)
			}
		}
		return faults
	}
}

func allowed(may map[string][]string, from, path string) bool {
	return slices.Contains(may[from], layer(may, path)) || slices.Contains(may[from], "*")
}

// layer is the layer that path lies in, empty where there is none.
func layer(may map[string][]string, path string) (best string) {
	if _, exact := may[path]; exact {
		return path
	}
	for l := range may {
		if base, tree := strings.CutSuffix(l, "/..."); tree && strings.HasPrefix(path+"/", base+"/") && len(l) > len(best) {
			best = l
		}
	}
	return best
}

// pureImports keeps what decides from what acts.
func pureImports(p *pkg) (faults []string) {
	if !pure.MatchString(p.path) || loops.MatchString(p.path) {
		return nil
	}
	for _, im := range p.imports {
		if acts.MatchString(im) {
			faults = append(faults, "decides, and so may not import "+im)
		}
	}
	return faults
}

// heavy are the doors to other projects that stay shut, and doorkeepers the
// packages that a door is for.
var (
	heavy = []string{
		"k8s.io/kubernetes/", "k8s.io/apiserver/pkg/server", "k8s.io/apiserver/pkg/endpoints", "k8s.io/apiserver/pkg/registry",
		"k8s.io/apiserver/pkg/storage", "k8s.io/apiserver/pkg/admission", "github.com/pkg/errors", "github.com/stretchr/testify",
		"github.com/onsi/ginkgo", "github.com/onsi/gomega", "io/ioutil",
	}
	doorkeepers = map[string]string{
		"github.com/cilium/ebpf": "proxy/datapath",
		"go.etcd.io/etcd":        "registry/etcd",
		"k8s.io/klog":            "cmd/knarr/parts", // which hands on to slog what libraries log by it
	}
)

// doors keeps shut what is not to be imported, or not by everybody.
func doors(p *pkg) (faults []string) {
	for _, im := range slices.Concat(p.imports, p.testImports) {
		for _, h := range heavy {
			if strings.HasPrefix(im+"/", h) || strings.HasPrefix(im, h) {
				faults = append(faults, "imports "+im+", which nobody here may")
			}
		}
		for door, keeper := range doorkeepers {
			if strings.HasPrefix(im, door) && p.path != keeper {
				faults = append(faults, fmt.Sprintf("imports %s, which only %s may", im, keeper))
			}
		}
	}
	return faults
}
