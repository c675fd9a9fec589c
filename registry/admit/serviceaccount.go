package admit

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-dev/knarr/registry/needs"
)

// What pods get of their service account.
const (
	defaultAccount  = "default"
	tokenVolume     = "kube-api-access-"
	tokenPath       = "/var/run/secrets/kubernetes.io/serviceaccount"
	tokenSeconds    = 3607 // an hour, and a mark by which the server knows its own
	onlyItsSecrets  = "kubernetes.io/enforce-mountable-secrets"
	accountTries    = 10
	accountPatience = 150 * time.Millisecond // between tries
)

// serviceAccount gives each pod a service account, which must be there, and
// the token of that account in a volume.
func serviceAccount(cfg Config) Plugin {
	a := accounts{cfg}
	return Plugin{Name: "ServiceAccount", Mutate: a.mutate, Validate: a.validate}
}

type accounts struct{ Config }

func (a accounts) mutate(ctx context.Context, w World, r *Request) error {
	pod := r.pod()
	if pod == nil || r.Operation != Create {
		return nil
	}
	if mirror(pod) {
		return a.validate(ctx, w, r)
	}
	if pod.Spec.ServiceAccountName == "" {
		pod.Spec.ServiceAccountName = defaultAccount
	}
	pod.Spec.DeprecatedServiceAccount = pod.Spec.ServiceAccountName // the same by an older name
	sa, err := a.account(ctx, w, r, pod.Spec.ServiceAccountName)
	if err != nil {
		return err
	}
	if automount(sa, pod) {
		a.mount(pod)
	}
	if len(pod.Spec.ImagePullSecrets) == 0 {
		pod.Spec.ImagePullSecrets = slices.Clone(sa.ImagePullSecrets)
	}
	return a.secrets(r, sa, pod)
}

func (a accounts) validate(ctx context.Context, w World, r *Request) error {
	pod, _ := r.Object.(*corev1.Pod)
	late := r.Sub == "ephemeralcontainers" && r.Operation == Update
	if pod == nil || !late && (r.pod() == nil || r.Operation != Create) {
		return nil
	}
	if mirror(pod) && !late {
		return mirrorFault(r, pod)
	}
	if pod.Spec.ServiceAccountName == "" {
		return forbid(r, "no service account specified for pod %s/%s", r.Namespace, pod.Name)
	}
	sa, err := a.account(ctx, w, r, pod.Spec.ServiceAccountName)
	if err != nil {
		return err
	}
	return a.secrets(r, sa, pod)
}

// account is the service account called name. The one that every namespace
// has may be a moment away where the namespace is new.
func (a accounts) account(ctx context.Context, w World, r *Request, name string) (*corev1.ServiceAccount, error) {
	for try := 1; ; try++ {
		obj, err := w.Lookup(ctx, schema.GroupResource{Resource: "serviceaccounts"}, r.Namespace, name)
		if err == nil {
			return obj.(*corev1.ServiceAccount), nil
		}
		wait := apierrors.IsNotFound(err) && name == defaultAccount && try < accountTries
		if apierrors.IsNotFound(err) {
			err = apierrors.NewNotFound(schema.GroupResource{Resource: "serviceaccount"}, name) // as upstream: in the singular
		}
		if !wait || a.Pause(ctx, accountPatience) != nil {
			return nil, forbid(r, "error looking up service account %s/%s: %w", r.Namespace, name, err)
		}
	}
}

func automount(sa *corev1.ServiceAccount, pod *corev1.Pod) bool {
	for _, says := range []*bool{pod.Spec.AutomountServiceAccountToken, sa.AutomountServiceAccountToken} {
		if says != nil {
			return *says
		}
	}
	return true
}

// mount gives the containers of a pod the volume with its token, except where
// they have something else at its place.
func (a accounts) mount(pod *corev1.Pod) {
	name := tokenVolume + a.Tail()
	there := slices.IndexFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return strings.HasPrefix(v.Name, tokenVolume) })
	if there >= 0 {
		name = pod.Spec.Volumes[there].Name
	}
	needed := false
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			c := &containers[i]
			if slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == tokenPath }) {
				continue
			}
			c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: name, ReadOnly: true, MountPath: tokenPath})
			needed = true
		}
	}
	if needed && there < 0 {
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{Projected: tokenSource()}})
	}
}

// tokenSource is a token, and what is needed to use it.
func tokenSource() *corev1.ProjectedVolumeSource {
	return &corev1.ProjectedVolumeSource{
		DefaultMode: new(corev1.ProjectedVolumeSourceDefaultMode),
		Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: new(int64(tokenSeconds))}},
			{ConfigMap: &corev1.ConfigMapProjection{
				LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"},
				Items:                []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}},
			}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{
				Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"},
			}}}},
		},
	}
}

// mirrorFault refuses a mirror pod that refers to what its node may not see.
func mirrorFault(r *Request, pod *corev1.Pod) error {
	if pod.Spec.ServiceAccountName != "" {
		return forbid(r, "a mirror pod may not reference service accounts")
	}
	if slices.ContainsFunc(needs.OfPod(pod), func(n needs.Ref) bool { return n.Kind == needs.Secret }) {
		return forbid(r, "a mirror pod may not reference secrets")
	}
	for _, v := range pod.Spec.Volumes {
		if v.Projected != nil && slices.ContainsFunc(v.Projected.Sources, func(s corev1.VolumeProjection) bool { return s.ServiceAccountToken != nil }) {
			return forbid(r, "a mirror pod may not use ServiceAccountToken volume projections")
		}
	}
	return nil
}

// secrets refuses secrets that a service account does not list, if it wants
// its pods to have no others.
func (a accounts) secrets(r *Request, sa *corev1.ServiceAccount, pod *corev1.Pod) error {
	if only, _ := strconv.ParseBool(sa.Annotations[onlyItsSecrets]); !only { // nor where it says neither
		return nil
	}
	own := func(name string) bool {
		return slices.ContainsFunc(sa.Secrets, func(s corev1.ObjectReference) bool { return s.Name == name })
	}
	refuse := func(what, secret string) error {
		return forbid(r, "%s secret.secretName=%q is not allowed because service account %s does not reference that secret", what, secret, sa.Name)
	}
	if r.Sub == "" {
		for _, v := range pod.Spec.Volumes {
			if v.Secret != nil && !own(v.Secret.SecretName) {
				return refuse("volume with", v.Secret.SecretName)
			}
		}
	}
	for _, c := range containersOf(pod, r.Sub != "") {
		if what, secret, ok := foreignSecret(c.Container, own); ok {
			return refuse(fmt.Sprintf("%s %s with %s referencing", c.what, c.Name, what), secret)
		}
	}
	if r.Sub != "" {
		return nil
	}
	for i, s := range pod.Spec.ImagePullSecrets {
		if !slices.Contains(sa.ImagePullSecrets, s) {
			return forbid(r, `imagePullSecrets[%d].name="%s" is not allowed because service account %s does not reference that imagePullSecret`, i, s.Name, sa.Name)
		}
	}
	return nil
}

// A named container is one and what it is called in errors.
type namedContainer struct {
	*corev1.Container

	what string
}

// containersOf are the containers of a pod that are there from the start, or
// those that have come later.
func containersOf(pod *corev1.Pod, late bool) (all []namedContainer) {
	if late {
		for i := range pod.Spec.EphemeralContainers {
			c := corev1.Container(pod.Spec.EphemeralContainers[i].EphemeralContainerCommon)
			all = append(all, namedContainer{&c, "ephemeral container"})
		}
		return all
	}
	for i := range pod.Spec.InitContainers {
		all = append(all, namedContainer{&pod.Spec.InitContainers[i], "init container"})
	}
	for i := range pod.Spec.Containers {
		all = append(all, namedContainer{&pod.Spec.Containers[i], "container"})
	}
	return all
}

// foreignSecret finds a secret in the environment of a container that is not
// one's own.
func foreignSecret(c *corev1.Container, own func(string) bool) (what, secret string, found bool) {
	for _, e := range c.Env {
		if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil && !own(e.ValueFrom.SecretKeyRef.Name) {
			return "envVar " + e.Name, e.ValueFrom.SecretKeyRef.Name, true
		}
	}
	for _, e := range c.EnvFrom {
		if e.SecretRef != nil && !own(e.SecretRef.Name) {
			return "envFrom", e.SecretRef.Name, true
		}
	}
	return "", "", false
}
