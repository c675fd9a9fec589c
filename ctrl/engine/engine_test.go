package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/ctrl"
)

// A cluster is an API server for config maps, and a door to it. What it is
// told shows up in the watch after lag.
type cluster struct {
	mu      sync.Mutex
	rev     int64
	objects map[string]*corev1.ConfigMap
	watch   *watch.RaceFreeFakeWatcher
	lag     time.Duration
	deny    func(ctrl.Action) error
	did     []string
	running int // requests under way
	most    int // of them at any moment
	slow    time.Duration
}

func newCluster() *cluster {
	return &cluster{rev: 100, objects: map[string]*corev1.ConfigMap{}}
}

func (c *cluster) informer() cache.SharedIndexInformer {
	lw := &cache.ListWatch{
		ListWithContextFunc: func(context.Context, metav1.ListOptions) (runtime.Object, error) {
			c.mu.Lock()
			defer c.mu.Unlock()
			list := &corev1.ConfigMapList{ListMeta: metav1.ListMeta{ResourceVersion: strconv.FormatInt(c.rev, 10)}}
			for _, o := range c.objects {
				list.Items = append(list.Items, *o)
			}
			return list, nil
		},
		WatchFuncWithContext: func(_ context.Context, o metav1.ListOptions) (watch.Interface, error) {
			if o.SendInitialEvents != nil {
				return nil, apierrors.NewInvalid(schema.GroupKind{}, "", nil) // lists, then
			}
			return c.watch, nil
		},
	}
	return cache.NewSharedIndexInformer(lw, &corev1.ConfigMap{}, 0, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
}

// write is what a server does with a write, and what its watch tells of it.
func (c *cluster) write(kind watch.EventType, o *corev1.ConfigMap) *corev1.ConfigMap {
	c.rev++
	o = o.DeepCopy()
	if o.Name == "" {
		o.Name = fmt.Sprintf("%s%d", o.GenerateName, c.rev)
	}
	if o.UID == "" {
		o.UID = types.UID(fmt.Sprintf("uid-%d", c.rev))
	}
	o.ResourceVersion = strconv.FormatInt(c.rev, 10)
	c.objects[o.Name] = o
	if kind == watch.Deleted {
		delete(c.objects, o.Name)
	}
	switch {
	case c.watch == nil: // nobody watches yet
	case c.lag == 0:
		c.watch.Action(kind, o)
	default:
		time.AfterFunc(c.lag, func() { c.watch.Action(kind, o) })
	}
	return o.DeepCopy()
}

func (c *cluster) put(o *corev1.ConfigMap) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.write(watch.Added, o)
}

func (c *cluster) do(_ context.Context, a ctrl.Action) (apis.Object, error) {
	c.mu.Lock()
	c.running++
	c.most = max(c.most, c.running)
	c.mu.Unlock()
	<-time.After(c.slow) // inside synctest: no time at all
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running--
	c.did = append(c.did, a.String())
	if c.deny != nil {
		if err := c.deny(a); err != nil {
			return nil, err
		}
	}
	o := a.Obj.(*corev1.ConfigMap)
	switch a.Verb {
	case ctrl.Create:
		return c.write(watch.Added, o), nil
	case ctrl.Delete:
		return c.write(watch.Deleted, o), nil
	default:
		return c.write(watch.Modified, o), nil
	}
}

func (c *cluster) tell(a ctrl.Action, _, _ string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.did = append(c.did, a.String())
}

func (c *cluster) close() {}

func (c *cluster) made() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.did)
}

// play runs a controller of config maps on c for d of fake time.
func play(t *testing.T, c *cluster, d time.Duration, decide func(ctrl.World, *corev1.ConfigMap) ctrl.Plan) *metrics {
	m := newMetrics()
	synctest.Test(t, func(t *testing.T) {
		c.watch = watch.NewRaceFreeFake() // of this bubble
		erased := ctrl.Controller[*corev1.ConfigMap, func() ctrl.Plan]{
			Name: "test", Workers: 2,
			Writes: []ctrl.Write{ctrl.May(&corev1.ConfigMap{}, ctrl.Create, ctrl.Update, ctrl.Delete)},
			Gather: func(w ctrl.World, o *corev1.ConfigMap) func() ctrl.Plan {
				return func() ctrl.Plan { return decide(w, o) }
			},
			Decide: func(in func() ctrl.Plan) ctrl.Plan { return in() },
		}.Erase()
		ctx, stop := context.WithTimeout(t.Context(), d)
		defer stop()
		r := newRunner(&erased, c, m)
		s := newSource(schema.GroupVersionResource{Resource: "configmaps"}, c.informer())
		kind := reflect.TypeFor[*corev1.ConfigMap]()
		r.view[kind] = s
		s.read(reader{r, erased.Reads[0].Wakes})
		if err := s.listen(); err != nil {
			t.Fatal(err)
		}
		var parts sync.WaitGroup
		parts.Go(func() { s.informer.RunWithContext(ctx) })
		r.run(ctx)
		parts.Wait()
	})
	return m
}

func configMap(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID("uid-" + name)}}
}

// TestInformersThatRun has the engine begin with informers that others have
// started: each controller must look at all that is there.
func TestInformersThatRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset(configMap("a"), configMap("b"))
		shared := informers.NewSharedInformerFactory(client, 0)
		held := shared.Core().V1().ConfigMaps().Informer()
		ctx, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		shared.StartWithContext(ctx)
		if !cache.WaitFor(ctx, "", held.HasSyncedChecker()) {
			t.Fatal("the informer does not sync")
		}
		var mu sync.Mutex
		seen := map[string]bool{}
		var controllers []ctrl.Erased
		for _, name := range []string{"first", "second", "third"} {
			controllers = append(controllers, ctrl.Controller[*corev1.ConfigMap, string]{
				Name: name, Account: name,
				Gather: func(_ ctrl.World, o *corev1.ConfigMap) string { return name + " " + o.Name },
				Decide: func(what string) ctrl.Plan {
					mu.Lock()
					defer mu.Unlock()
					seen[what] = true
					return ctrl.Plan{}
				},
			}.Erase())
		}
		err := Run(ctx, Config{
			Controllers: controllers, Informers: shared,
			Client: func(string) kubernetes.Interface {
				synctest.Wait() // the informer tells what it will before the next controller is there
				return client
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		want := []string{"first a", "first b", "second a", "second b", "third a", "third b"}
		if diff := cmp.Diff(want, slices.Sorted(maps.Keys(seen))); diff != "" {
			t.Error(diff)
		}
	})
}

func TestAfter(t *testing.T) {
	c := newCluster()
	c.put(configMap("a"))
	var at []time.Duration
	var start time.Time
	play(t, c, 15*time.Second, func(w ctrl.World, _ *corev1.ConfigMap) ctrl.Plan {
		if start.IsZero() {
			start = w.Now
		}
		at = append(at, w.Now.Sub(start))
		return ctrl.Plan{After: 6 * time.Second}
	})
	if want := []time.Duration{0, 6 * time.Second, 12 * time.Second}; !slices.Equal(at, want) {
		t.Errorf("decided at %v, want %v", at, want)
	}
}

func TestRetryGrows(t *testing.T) {
	c := newCluster()
	c.put(configMap("a"))
	c.deny = func(ctrl.Action) error { return errors.New("no") }
	var at []time.Duration
	var start time.Time
	play(t, c, 40*time.Millisecond, func(w ctrl.World, o *corev1.ConfigMap) ctrl.Plan {
		if start.IsZero() {
			start = w.Now
		}
		at = append(at, w.Now.Sub(start))
		return ctrl.Plan{Do: []ctrl.Action{{Verb: ctrl.Update, Obj: o}}}
	})
	if want := []time.Duration{0, 5e6, 15e6, 35e6}; !slices.Equal(at, want) {
		t.Errorf("decided at %v, want %v", at, want)
	}
}

// TestSeesItsOwnWrites lets a controller that wants one child for its object
// be woken while the child has not shown up yet: it must not make another.
func TestSeesItsOwnWrites(t *testing.T) {
	c := newCluster()
	c.lag = 300 * time.Millisecond
	c.put(configMap("parent"))
	c.put(configMap("other"))
	play(t, c, 5*time.Second, func(w ctrl.World, o *corev1.ConfigMap) ctrl.Plan {
		if o.Name != "parent" {
			return ctrl.Plan{}
		}
		for _, child := range ctrl.In[*corev1.ConfigMap](w, "ns") {
			if strings.HasPrefix(child.Name, "child-") {
				return ctrl.Plan{}
			}
		}
		child := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", GenerateName: "child-"}}
		touched := o.DeepCopy()
		touched.Data = map[string]string{"touched": "yes"} // wakes it while the child is on its way
		return ctrl.Plan{Do: []ctrl.Action{{Verb: ctrl.Update, Obj: touched}, {Verb: ctrl.Create, Obj: child}}, After: 10 * time.Millisecond}
	})
	if want := []string{"update configmap ns/parent", "create configmap ns/child-*"}; !slices.Equal(c.made(), want) {
		t.Errorf("it did %v, want %v", c.made(), want)
	}
}

// TestSeesItsOwnDeletions is the same with a deletion, of which the server
// need not tell the revision.
func TestSeesItsOwnDeletions(t *testing.T) {
	c := newCluster()
	c.lag = 300 * time.Millisecond
	c.put(configMap("parent"))
	c.put(configMap("victim"))
	play(t, c, 5*time.Second, func(w ctrl.World, o *corev1.ConfigMap) ctrl.Plan {
		plan := ctrl.Plan{After: 50 * time.Millisecond}
		if v := ctrl.Get[*corev1.ConfigMap](w, "ns", "victim"); v != nil && o.Name == "parent" {
			plan.Do = []ctrl.Action{{Verb: ctrl.Delete, Obj: v}}
		}
		return plan
	})
	if want := []string{"delete configmap ns/victim"}; !slices.Equal(c.made(), want) {
		t.Errorf("it did %v, want %v", c.made(), want)
	}
}

func TestPanicIsAFailure(t *testing.T) {
	c := newCluster()
	c.put(configMap("a"))
	looks := 0
	m := play(t, c, 12*time.Millisecond, func(ctrl.World, *corev1.ConfigMap) ctrl.Plan {
		if looks++; looks == 1 {
			panic("once")
		}
		return ctrl.Plan{}
	})
	if looks != 2 {
		t.Errorf("%d looks, want 2", looks)
	}
	if n := counted(t, m)["controllers_panics_total"]; n != 1 {
		t.Errorf("%v panics counted", n)
	}
}

// TestPaces carries out runs of actions: how many go at a time, and how far
// they come when one fails.
func TestPaces(t *testing.T) {
	for _, tt := range []struct {
		name       string
		pace       ctrl.Pace
		failsAfter int
		did, most  int
	}{
		{"in turn", ctrl.InTurn, 100, 20, 1},
		{"slow start", ctrl.SlowStart, 100, 20, 8},
		{"at once", ctrl.AtOnce, 100, 20, 20},
		{"slow start that fails at the third", ctrl.SlowStart, 2, 3, 2},
		{"in turn that fails at the third", ctrl.InTurn, 2, 3, 1},
		{"at once that fails at the third", ctrl.AtOnce, 2, 20, 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCluster()
			c.put(configMap("a"))
			c.slow = time.Millisecond
			n, said := 0, 0
			c.deny = func(ctrl.Action) error {
				if n++; n > tt.failsAfter {
					return errors.New("enough")
				}
				return nil
			}
			looked := false
			play(t, c, time.Second, func(ctrl.World, *corev1.ConfigMap) (plan ctrl.Plan) {
				if looked {
					return ctrl.Plan{}
				}
				looked = true
				for range 20 {
					plan.Do = append(plan.Do, ctrl.Action{
						Verb: ctrl.Create, Obj: &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", GenerateName: "x-"}}, Pace: tt.pace,
						Else: func(error) []ctrl.Action { said++; return nil },
					})
				}
				return plan
			})
			if len(c.made()) != tt.did || c.most != tt.most {
				t.Errorf("did %d, %d at a time; want %d and %d", len(c.made()), c.most, tt.did, tt.most)
			}
			if failed := tt.failsAfter < 20; said != map[bool]int{true: 1}[failed] {
				t.Errorf("%d times told what to do on failure", said)
			}
		})
	}
}

// TestPlanEndsEarly holds to what a plan does when the world is not as it was seen.
func TestPlanEndsEarly(t *testing.T) {
	gone := apierrors.NewNotFound(schema.GroupResource{Resource: "configmaps"}, "a")
	closing := apierrors.NewForbidden(schema.GroupResource{Resource: "configmaps"}, "a", errors.New("no"))
	closing.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause}}
	for _, tt := range []struct {
		name string
		verb ctrl.Verb
		err  error
		next bool // the plan goes on
	}{
		{"deletes what is gone", ctrl.Delete, gone, true},
		{"updates what is gone", ctrl.Update, gone, false},
		{"creates in a namespace that closes", ctrl.Create, closing, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCluster()
			c.put(configMap("a"))
			c.deny = func(a ctrl.Action) error {
				if a.Obj.GetName() == "first" {
					return tt.err
				}
				return nil
			}
			looks := 0
			play(t, c, 30*time.Millisecond, func(_ ctrl.World, o *corev1.ConfigMap) ctrl.Plan {
				if looks++; o.Name != "a" || len(c.made()) > 1 {
					return ctrl.Plan{}
				}
				return ctrl.Plan{Do: []ctrl.Action{{Verb: tt.verb, Obj: configMap("first")}, {Verb: ctrl.Create, Obj: configMap("second")}}}
			})
			if went := len(c.made()) > 1; went != tt.next {
				t.Errorf("did %v", c.made())
			}
			if !tt.next && looks != 1 {
				t.Errorf("%d looks: it was taken for a failure", looks)
			}
		})
	}
}

func TestThenAndElse(t *testing.T) {
	c := newCluster()
	c.put(configMap("a"))
	c.deny = func(a ctrl.Action) error {
		if a.Obj.GetName() == "bad" {
			return errors.New("denied")
		}
		return nil
	}
	looked := false
	play(t, c, time.Millisecond, func(_ ctrl.World, o *corev1.ConfigMap) ctrl.Plan {
		if looked {
			return ctrl.Plan{}
		}
		looked = true
		tell := func(format string, args ...any) []ctrl.Action { return []ctrl.Action{ctrl.Tell(o, format, args...)} }
		return ctrl.Plan{Do: []ctrl.Action{
			{Verb: ctrl.Create, Obj: &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", GenerateName: "x-"}}, Then: func(done apis.Object) []ctrl.Action {
				return tell("Made: %s", done.GetName())
			}},
			{Verb: ctrl.Create, Obj: configMap("bad"), Else: func(err error) []ctrl.Action { return tell("Failed: %v", err) }},
			{Verb: ctrl.Create, Obj: configMap("never")},
		}}
	})
	want := []string{"create configmap ns/x-*", "event configmap ns/a Made: x-102", "create configmap ns/bad", "event configmap ns/a Failed: denied"}
	if diff := cmp.Diff(want, c.made()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestRefusesWhatIsNotDeclared(t *testing.T) {
	c := newCluster()
	c.put(configMap("a"))
	play(t, c, time.Millisecond, func(_ ctrl.World, o *corev1.ConfigMap) ctrl.Plan {
		return ctrl.Plan{Do: []ctrl.Action{{Verb: ctrl.UpdateStatus, Obj: o}}}
	})
	if len(c.made()) > 0 {
		t.Errorf("it did %v", c.made())
	}
}

// TestMemo keeps a plan's memo for the key, until another object has its name.
func TestMemo(t *testing.T) {
	c := newCluster()
	c.put(configMap("a"))
	var seen []any
	play(t, c, 25*time.Second, func(w ctrl.World, _ *corev1.ConfigMap) ctrl.Plan {
		n, _ := w.Memo.(int)
		seen = append(seen, w.Memo)
		plan := ctrl.Plan{Memo: n + 1, After: 10 * time.Second}
		if n == 1 {
			other := configMap("a")
			other.UID = "another"
			plan.Do = []ctrl.Action{{Verb: ctrl.Update, Obj: other}}
		}
		return plan
	})
	if want := []any{nil, 1, nil, 1, 2}; !reflect.DeepEqual(seen[:5], want) {
		t.Errorf("memos %v, want %v", seen, want)
	}
}

// TestLease lets two engines want the same lease: the second leads when the
// first has stopped, and at once, since the first gives it back.
func TestLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset()
		var mu sync.Mutex
		var order []string
		note := func(s string) {
			mu.Lock()
			defer mu.Unlock()
			order = append(order, s)
		}
		lead := func(name string) func(context.Context) error {
			return func(ctx context.Context) error {
				note(name + " leads")
				<-ctx.Done()
				note(name + " stops")
				return nil
			}
		}
		one, stopOne := context.WithCancel(t.Context())
		two, stopTwo := context.WithCancel(t.Context())
		var both sync.WaitGroup
		both.Go(func() {
			if err := (Lease{Identity: "one"}).hold(one, client, lead("one")); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		both.Go(func() {
			if err := (Lease{Identity: "two"}).hold(two, client, lead("two")); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(time.Minute)
		stopOne()
		time.Sleep(6 * time.Second) // less than the 15 s that the lease would last
		stopTwo()
		both.Wait()
		if want := []string{"one leads", "one stops", "two leads", "two stops"}; !slices.Equal(order, want) {
			t.Errorf("%v, want %v", order, want)
		}
	})
}

// TestMetrics lists the metrics there are.
func TestMetrics(t *testing.T) {
	c := newCluster()
	reg := prometheus.NewRegistry()
	var names []string
	m := newMetrics()
	r := newRunner(&ctrl.Erased{Name: "test"}, c, m)
	defer r.queue.ShutDown()
	m.woken(r, ctrl.Key{})
	m.begin(r, ctrl.Key{})(errors.New("no"))
	m.stale(r)
	m.panicked(r)
	m.acted(r, ctrl.Action{Verb: ctrl.Patch, Sub: "status", Obj: configMap("a")}, nil)
	reg.MustRegister(m)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		names = append(names, f.GetName())
	}
	want := []string{
		"controllers_actions_total", "controllers_panics_total", "controllers_stale_looks_total",
		"workqueue_adds_total", "workqueue_depth", "workqueue_longest_running_processor_seconds", "workqueue_queue_duration_seconds",
		"workqueue_retries_total", "workqueue_unfinished_work_seconds", "workqueue_work_duration_seconds",
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// counted is the sum of each counter.
func counted(t *testing.T, m *metrics) map[string]float64 {
	t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(m)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, metric := range f.GetMetric() {
			out[f.GetName()] += metric.GetCounter().GetValue()
		}
	}
	return out
}
