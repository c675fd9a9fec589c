//go:build e2e

package kills

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// An ack is a write that the server has said it did.
type ack struct {
	name    string
	uid     types.UID
	version string // after it, "" for a deletion
}

// A writer creates, changes and deletes objects that nobody else writes.
type writer struct {
	client *kubernetes.Clientset
	name   string
	rand   *rand.Rand

	have    map[string]*corev1.ConfigMap // by name, nil for one that is not there
	acks    []ack
	unknown int // writes of which it was not told whether they were done
	count   int
	faults  []string
	story   map[string][]string // by name, what was done and what came of it
}

func (w *writer) run(ctx context.Context, done <-chan struct{}) {
	w.have, w.story = map[string]*corev1.ConfigMap{}, map[string][]string{}
	for {
		select {
		case <-done:
			return
		case <-ctx.Done():
			return
		default:
		}
		name := fmt.Sprint(w.name, "-", w.rand.IntN(10))
		if !w.write(ctx, name) {
			w.unknown++
			w.learn(ctx, name)
		}
	}
}

// write writes once and tells whether it knows what has become of it.
func (w *writer) write(ctx context.Context, name string) bool {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	maps := w.client.CoreV1().ConfigMaps(space)
	w.count++
	data := map[string]string{"n": fmt.Sprint(w.count)}
	cur := w.have[name]
	switch {
	case cur == nil:
		made, err := maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: data}, metav1.CreateOptions{})
		return w.done(name, made, err)
	case w.rand.IntN(4) == 0:
		err := maps.Delete(ctx, name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(cur.UID))})
		if err == nil {
			w.acks = append(w.acks, ack{name: name, uid: cur.UID})
			w.have[name] = nil
		}
		return w.done(name, nil, err)
	}
	next := cur.DeepCopy()
	next.Data = data
	made, err := maps.Update(ctx, next, metav1.UpdateOptions{})
	return w.done(name, made, err)
}

// tell notes what happened to an object, for who must find out why.
func (w *writer) tell(name, what string, m *corev1.ConfigMap, err error) {
	line := fmt.Sprintf("%s %s: %v", time.Now().Format("05.000"), what, err)
	if err == nil && m != nil {
		line = fmt.Sprintf("%s %s: %s is %s", time.Now().Format("05.000"), what, m.ResourceVersion, m.Data["n"])
	}
	w.story[name] = append(w.story[name][max(0, len(w.story[name])-6):], line)
}

// done notes what a write came to. That somebody else has written cannot be.
func (w *writer) done(name string, made *corev1.ConfigMap, err error) bool {
	w.tell(name, "write", made, err)
	switch {
	case err == nil && made != nil:
		w.acks = append(w.acks, ack{name: name, uid: made.UID, version: made.ResourceVersion})
		w.have[name] = made
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err), apierrors.IsNotFound(err):
		w.faults = append(w.faults, fmt.Sprintf("%s is not as it was left: %v; so far: %s", name, err, strings.Join(w.story[name], "; ")))
		return false
	}
	return err == nil
}

// learn asks how an object is until it is told, and holds that against what
// was acknowledged.
func (w *writer) learn(ctx context.Context, name string) {
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	for {
		one, cancel := context.WithTimeout(ctx, 10*time.Second)
		got, err := w.client.CoreV1().ConfigMaps(space).Get(one, name, metav1.GetOptions{})
		cancel()
		w.tell(name, "read", got, err)
		switch {
		case err == nil:
			w.have[name] = got
			return
		case apierrors.IsNotFound(err):
			w.have[name] = nil
			return
		}
		select {
		case <-retry.C:
		case <-ctx.Done():
			return
		}
	}
}
