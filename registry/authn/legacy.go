package authn

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-dev/knarr/registry"
)

// legacyIssuer is who issues tokens that are kept in secrets and never end.
const legacyIssuer = "kubernetes/serviceaccount"

// InvalidSince labels a secret whose token is not to be used any more, and
// LastUsed when it last was.
const (
	InvalidSince = "kubernetes.io/legacy-token-invalid-since"
	LastUsed     = "kubernetes.io/legacy-token-last-used"
)

// A legacyRef is the secret and the service account of such a token.
type legacyRef struct {
	Name      string    `json:"kubernetes.io/serviceaccount/service-account.name"`
	UID       types.UID `json:"kubernetes.io/serviceaccount/service-account.uid"`
	Secret    string    `json:"kubernetes.io/serviceaccount/secret.name"`
	Namespace string    `json:"kubernetes.io/serviceaccount/namespace"`
}

// legacy tells whose a token is that is kept in a secret.
func (a *ServiceAccounts) legacy(ctx context.Context, token string, c *Claims, audiences []string) (Identity, bool, error) {
	ref := c.Legacy
	meant := common(a.Audiences, audiences)
	user := account(ref.Namespace, Ref{ref.Name, ref.UID})
	switch {
	case len(meant) == 0:
		return Identity{}, false, fmt.Errorf("token audiences %q is invalid for the target audiences %q", a.Audiences, audiences)
	case ref.Namespace == "" || ref.Name == "" || ref.UID == "" || ref.Secret == "":
		return Identity{}, false, errors.New("a claim of the token is missing")
	case c.Subject != user.Name:
		return Identity{}, false, errors.New("sub claim is invalid")
	}
	secret, err := a.secret(ctx, token, ref)
	if err != nil {
		return Identity{}, false, err
	}
	uid, deleted, err := a.Objects.Trace(ctx, serviceAccounts, ref.Namespace, ref.Name)
	switch {
	case err != nil:
		return Identity{}, false, err
	case !deleted.IsZero():
		return Identity{}, false, fmt.Errorf("ServiceAccount %s/%s has been deleted", ref.Namespace, ref.Name)
	case uid != ref.UID:
		return Identity{}, false, fmt.Errorf("ServiceAccount UID (%s) does not match claim (%s)", uid, ref.UID)
	}
	registry.RequestOf(ctx).Annotate("authentication.k8s.io/legacy-token", c.Subject)
	now := a.Now().UTC()
	today, tomorrow := now.Format(time.DateOnly), now.AddDate(0, 0, 1).Format(time.DateOnly)
	if last := secret.Labels[LastUsed]; a.Used != nil && last != today && last != tomorrow {
		a.Used(ctx, ref.Namespace, ref.Secret, today)
	}
	if secret.Labels[InvalidSince] != "" {
		return Identity{}, false, fmt.Errorf("the token in secret %s/%s for service account %s/%s has been marked invalid. "+
			"Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the '%s' label from the secret to temporarily allow use of this token",
			ref.Namespace, ref.Secret, ref.Namespace, ref.Name, InvalidSince)
	}
	return Identity{User: user, Audiences: meant}, true, nil
}

// secret is where the token is kept, which must be there and hold it still.
func (a *ServiceAccounts) secret(ctx context.Context, token string, ref legacyRef) (*corev1.Secret, error) {
	obj, err := a.Objects.Lookup(ctx, secrets, ref.Namespace, ref.Secret)
	if err != nil || obj.GetDeletionTimestamp() != nil {
		return nil, errors.New("Token has been invalidated")
	}
	secret, ok := obj.(*corev1.Secret)
	if !ok || subtle.ConstantTimeCompare(secret.Data[corev1.ServiceAccountTokenKey], []byte(token)) == 0 {
		return nil, errors.New("Token does not match server's copy")
	}
	return secret, nil
}
