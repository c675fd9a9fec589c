package volume

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// A token is one that was given for a volume.
type token struct {
	value   string
	renew   time.Time
	expires time.Time
}

const (
	defaultLife = 3600 // seconds
	maxAge      = 24 * time.Hour
	maxJitter   = 10 * time.Second
	retryToken  = 10 * time.Second
)

// token is a token for a volume, the one that there is while it is young. One
// that cannot be renewed yet is used for as long as it is good.
func (m *Mounter) token(ctx context.Context, p *corev1.Pod, volume string, s *corev1.ServiceAccountTokenProjection) (string, error) {
	if m.Token == nil {
		return "", errors.New("tokens are not supported by this kubelet")
	}
	key := volume + "/" + s.Path
	now := time.Now()
	m.mu.Lock()
	had := m.state(p.UID).tokens[key]
	m.mu.Unlock()
	if had.value != "" && now.Before(had.renew) {
		return had.value, nil
	}
	life := int64(defaultLife)
	if s.ExpirationSeconds != nil {
		life = *s.ExpirationSeconds
	}
	req := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: &life,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: p.Name, UID: p.UID},
	}}
	if s.Audience != "" {
		req.Spec.Audiences = []string{s.Audience}
	}
	got, err := m.Token(ctx, p.Namespace, p.Spec.ServiceAccountName, req)
	next := token{}
	switch {
	case err == nil:
		next = renewal(got, now)
	case had.value != "" && now.Before(had.expires):
		slog.WarnContext(ctx, "renew token", "obj", "Pod/"+p.Namespace+"/"+p.Name, "err", err)
		next, next.renew = had, now.Add(retryToken)
	default:
		return "", fmt.Errorf("failed to fetch token: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state(p.UID).tokens[key] = next
	return next.value, nil
}

// renewal is when a token is to be replaced: after four fifths of its life or
// a day, and not just when all others are.
func renewal(t *authenticationv1.TokenRequest, now time.Time) token {
	expires := t.Status.ExpirationTimestamp
	if expires == (metav1.Time{}) {
		expires = metav1.NewTime(now.Add(defaultLife * time.Second))
	}
	life := expires.Sub(now)
	return token{
		value: t.Status.Token, expires: expires.Time,
		renew: now.Add(min(life*4/5, maxAge)).Add(-rand.N(maxJitter)),
	}
}

// schedule has the pod prepared again when the first of its tokens is to be
// replaced.
func (m *Mounter) schedule(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.state(uid)
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	var first time.Time
	for _, t := range s.tokens {
		if first.IsZero() || t.renew.Before(first) {
			first = t.renew
		}
	}
	if !first.IsZero() && m.Refresh != nil {
		s.timer = time.AfterFunc(max(time.Until(first), time.Second), func() { m.Refresh(uid) })
	}
}
