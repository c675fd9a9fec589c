package admit

import (
	"context"
	"fmt"
	"slices"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/knarr-dev/knarr/registry"
)

// Config is what plugins work with besides the world. All of it is needed.
type Config struct {
	Now   func() time.Time
	Tail  func() string                                       // five letters that make a generated name
	Pause func(ctx context.Context, d time.Duration) error    // waits
	May   func(ctx context.Context, r *registry.Request) bool // whether a request would be allowed
	Roles Roles                                               // what may be granted
	Quota Ledger                                              // where use is charged
	Ask   []Plugin                                            // those that ask others, in order
}

// Roles tells what roles hold.
type Roles interface {
	// MayGrant returns why a user may not give others rules in a namespace,
	// nil where nothing is in the way.
	MayGrant(ctx context.Context, u *registry.User, namespace string, rules []rbacv1.PolicyRule) error
	// RulesOf returns the rules of the role that a binding refers to.
	RulesOf(ctx context.Context, ref rbacv1.RoleRef, namespace string) ([]rbacv1.PolicyRule, bool)
}

// Stock returns the plugins that the stock server has on, in its order, and
// those that it has built in and can turn off by no flag.
func Stock(cfg Config, on, off []string) ([]Plugin, error) {
	ordered := slices.Concat([]Plugin{
		namespaceLifecycle(), limitRanger(), serviceAccount(cfg), nodeRestriction(cfg), taintNodes(), podSecurity(), priority(),
		tolerations(), defaultStorageClass(), protectStorage(), resizeClaims(), runtimeClass(),
		certificateApproval(cfg), certificateSigning(cfg), certificateSubject(), defaultIngressClass(), topologyLabels(),
		podResize(),
	}, cfg.Ask, []Plugin{resourceQuota(cfg)})
	for _, name := range slices.Concat(on, off) {
		known := slices.ContainsFunc(ordered, func(p Plugin) bool { return p.Name == name })
		if !known && !slices.Contains(elsewhere, name) {
			return nil, fmt.Errorf("there is no admission plugin %q", name)
		}
	}
	plugins := []Plugin{requester(), certificateTimes(cfg)}
	for _, p := range ordered {
		wanted := !slices.Contains(offByDefault, p.Name) || slices.Contains(on, p.Name)
		if wanted && !slices.Contains(off, p.Name) {
			plugins = append(plugins, p)
		}
	}
	return append(plugins, escalation(cfg)), nil
}

// offByDefault are plugins that the stock server has and leaves off.
var offByDefault = []string{"NodeRestriction"}

// elsewhere are plugins that need no turning on here: they are not admission
// here, or are about what is not served.
var elsewhere = []string{
	"PodGroupWorkloadExists", "PodGroupProtection", "JobValidation", "ClusterTrustBundleAttest", "NodeDeclaredFeatureValidator",
	"AlwaysAdmit", "NamespaceExists",
}
