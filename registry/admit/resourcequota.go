package admit

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-dev/knarr/apis/quota"
)

// A Ledger keeps what is used of quotas.
type Ledger interface {
	// Charge stores q's status in place of what stands at q's
	// resourceVersion, and reports false where something else stands there.
	Charge(ctx context.Context, q *corev1.ResourceQuota) (bool, error)
}

// Bounds of the wait for a quota.
const (
	quotaPatience = 10 * time.Second
	quotaTries    = 4
)

// resourceQuota refuses what is more than the quotas of its namespace allow,
// and charges the rest to them. What comes at the same time is charged in one
// write.
func resourceQuota(cfg Config) Plugin {
	c := &cashier{Config: cfg, queues: map[string][]*bill{}}
	return Plugin{Name: "ResourceQuota", Validate: func(ctx context.Context, w World, r *Request) error {
		if r.Namespace == "" || r.Kind.GroupResource() == namespaces || !metered(r) {
			return nil
		}
		quotas, err := w.All(ctx, resourceQuotas, r.Namespace)
		if err != nil || len(quotas) == 0 {
			return err
		}
		return c.pay(ctx, w, r)
	}}
}

var resourceQuotas = schema.GroupResource{Resource: "resourcequotas"}

// metered reports whether a request can change what is used.
func metered(r *Request) bool {
	gr := r.Kind.GroupResource()
	if slices.Contains(quota.Ignored, gr) {
		return false
	}
	switch gr.String() {
	case "pods":
		return meteredPod(r)
	case "services", "resourceclaims.resource.k8s.io":
		return r.Sub == "" && (r.Operation == Create || r.Operation == Update)
	case "persistentvolumeclaims":
		if r.Sub == "status" && r.Operation == Update {
			pvc, old := r.Object.(*corev1.PersistentVolumeClaim), r.Old.(*corev1.PersistentVolumeClaim)
			return pvc.Status.AllocatedResources.Storage().Cmp(*old.Status.AllocatedResources.Storage()) != 0 ||
				!slices.Equal(quota.AttributesClasses(pvc), quota.AttributesClasses(old))
		}
		return r.Sub == "" && (r.Operation == Create || r.Operation == Update)
	}
	return r.Operation == Create && r.Sub == ""
}

func meteredPod(r *Request) bool {
	switch {
	case r.Sub == "resize":
		return r.Operation == Update
	case r.Sub != "":
		return false
	case r.Operation == Update:
		return quota.Terminating(r.Object.(*corev1.Pod)) != quota.Terminating(r.Old.(*corev1.Pod))
	}
	return r.Operation == Create
}

// A cashier charges requests, those of a namespace one after the other.
type cashier struct {
	Config

	mu     sync.Mutex
	queues map[string][]*bill // by namespace; one that is there is being worked on
}

// A bill is a request that waits to be charged.
type bill struct {
	request *Request
	settled chan error
}

// pay charges a request, or tells why it cannot be.
func (c *cashier) pay(ctx context.Context, w World, r *Request) error {
	ctx, cancel := context.WithTimeout(ctx, quotaPatience)
	defer cancel()
	b := &bill{r, make(chan error, 1)}
	c.mu.Lock()
	_, open := c.queues[r.Namespace]
	c.queues[r.Namespace] = append(c.queues[r.Namespace], b)
	c.mu.Unlock()
	if !open {
		go c.serve(context.WithoutCancel(ctx), w, r.Namespace)
	}
	select {
	case err := <-b.settled:
		return err
	case <-ctx.Done():
		return apierrors.NewInternalError(errors.New("resource quota evaluation timed out"))
	}
}

// serve settles the bills of a namespace until there are none.
func (c *cashier) serve(ctx context.Context, w World, namespace string) {
	ctx, cancel := context.WithTimeout(ctx, quotaPatience)
	defer cancel()
	for {
		c.mu.Lock()
		bills := c.queues[namespace]
		if len(bills) == 0 {
			delete(c.queues, namespace)
			c.mu.Unlock()
			return
		}
		c.queues[namespace] = []*bill{}
		c.mu.Unlock()
		every := func(*corev1.ResourceQuota) bool { return true }
		for try, which := 1, every; len(bills) > 0; try++ {
			bills, which = c.settle(ctx, w, namespace, bills, which)
			if try == quotaTries {
				finish(bills, apierrors.NewConflict(resourceQuotas, namespace, errors.New("the quotas change too often")))
				bills = nil
			}
		}
	}
}

// settle settles bills with the quotas asked for. It returns the bills for
// which that must be done anew, with those quotas that have changed meanwhile.
func (c *cashier) settle(ctx context.Context, w World, namespace string, bills []*bill, which func(*corev1.ResourceQuota) bool) (again []*bill, stale func(*corev1.ResourceQuota) bool) {
	found, err := w.All(ctx, resourceQuotas, namespace)
	if err != nil {
		finish(bills, err)
		return nil, nil
	}
	var quotas []*corev1.ResourceQuota
	for _, obj := range found {
		if q := obj.(*corev1.ResourceQuota); which(q) {
			quotas = append(quotas, q)
		}
	}
	before := slices.Clone(quotas)
	var charged []*bill
	for _, b := range bills {
		after, err := chargeTo(quotas, b.request, c.Now())
		if err != nil || b.request.DryRun || slices.Equal(quotas, after) {
			b.settled <- err
			continue
		}
		quotas, charged = after, append(charged, b)
	}
	var failed []string
	for i, q := range quotas {
		if q == before[i] {
			continue
		}
		ok, err := c.Quota.Charge(ctx, q)
		if err != nil {
			finish(charged, err)
			return nil, nil
		}
		if !ok {
			failed = append(failed, q.Name)
		}
	}
	if len(failed) > 0 {
		return charged, func(q *corev1.ResourceQuota) bool { return slices.Contains(failed, q.Name) }
	}
	finish(charged, nil)
	return nil, nil
}

// finish tells who waits for bills how they were settled.
func finish(bills []*bill, err error) {
	for _, b := range bills {
		b.settled <- err
	}
}

// chargeTo returns the quotas as they are after a request, in the same order;
// those that it does not concern are the same. The error is for what is more
// than a quota allows.
func chargeTo(quotas []*corev1.ResourceQuota, r *Request, now time.Time) ([]*corev1.ResourceQuota, error) {
	m := quota.For(r.Kind.GroupResource())
	var usage, old corev1.ResourceList
	after := slices.Clone(quotas)
	for i, q := range quotas {
		if !m.Matches(q, r.Object) {
			continue
		}
		names := m.Of(q.Status.Hard)
		if err := known(q, names, r); err != nil {
			return nil, err
		}
		if usage == nil {
			usage = m.Usage(r.Object, now)
			if r.Old != nil {
				old = m.Usage(r.Old, now)
			}
		}
		counted := corev1.ResourceList{}
		if r.Old != nil && m.Matches(q, r.Old) {
			counted = old
		}
		asked := quota.Part(quota.Growth(usage, counted), names)
		if len(asked) == 0 {
			continue
		}
		charged := q.DeepCopy()
		charged.Status.Used = quota.Sum(q.Status.Used, asked)
		if over := overOf(charged, asked); len(over) > 0 && r.Sub != "status" {
			return nil, forbid(r, "exceeded quota: %s, requested: %s, used: %s, limited: %s", q.Name,
				quota.Text(quota.Part(asked, over)), quota.Text(quota.Part(q.Status.Used, over)), quota.Text(quota.Part(q.Status.Hard, over)))
		}
		after[i] = charged
	}
	return after, nil
}

// overOf returns what of that which was asked for is now over a quota's bounds.
func overOf(q *corev1.ResourceQuota, asked corev1.ResourceList) []corev1.ResourceName {
	var names []corev1.ResourceName
	for name := range asked {
		names = append(names, name)
	}
	return quota.Over(quota.Part(q.Status.Used, names), q.Status.Hard)
}

// known checks that what is to be held against a quota is known: of the
// object how much it uses, of the quota how much of it is.
func known(q *corev1.ResourceQuota, names []corev1.ResourceName, r *Request) error {
	if pod, ok := r.Object.(*corev1.Pod); ok {
		if lacks := quota.Unspecified(pod, names); lacks != "" {
			return forbid(r, "failed quota: %s: %s", q.Name, lacks)
		}
	}
	for _, name := range names {
		if _, ok := q.Status.Used[name]; !ok {
			return forbid(r, "status unknown for quota: %s, resources: %s", q.Name, joinNames(names))
		}
	}
	return nil
}

func joinNames(names []corev1.ResourceName) string {
	texts := make([]string, len(names))
	for i, n := range names {
		texts[i] = string(n)
	}
	return strings.Join(texts, ",")
}
