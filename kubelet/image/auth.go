package image

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// An auth is a credential for a registry.
type auth struct {
	at       string // the host, with a path where it is for part of it only
	user     string
	password string
	secret   string // where it is from; empty is the node's own
}

// config is the credential as the runtime takes it; of nil it is nil.
func (a *auth) config() *runtimeapi.AuthConfig {
	if a == nil {
		return nil
	}
	return &runtimeapi.AuthConfig{Username: a.user, Password: a.password}
}

// hash tells credentials apart without telling what they are.
func (a *auth) hash() string {
	sum := sha256.Sum256([]byte(a.user + "\x00" + a.password))
	return hex.EncodeToString(sum[:])
}

// auths are the credentials that a pod has for an image, the one for the
// longest part of its name first.
func (k *Keeper) auths(ctx context.Context, p *corev1.Pod, image string) ([]auth, error) {
	var all []auth
	if k.NodeConfig != "" {
		b, err := os.ReadFile(k.NodeConfig)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read the node's credentials: %w", err)
		}
		own, err := parse(b, true)
		if err != nil && len(b) > 0 {
			return nil, fmt.Errorf("read the node's credentials: %w", err)
		}
		all = append(all, own...)
	}
	for _, ref := range p.Spec.ImagePullSecrets {
		if ref.Name == "" {
			continue
		}
		s, err := k.Secrets.Secret(ctx, p.UID, p.Namespace, ref.Name)
		if err != nil {
			why := "Unable to retrieve some image pull secrets (" + ref.Name + "); attempting to pull the image may not succeed."
			k.Tell(p, "", corev1.EventTypeWarning, "FailedToRetrieveImagePullSecret", why)
			if !apierrors.IsNotFound(err) && ctx.Err() != nil {
				return nil, ctx.Err()
			}
			continue
		}
		list, err := ofSecret(s)
		if err != nil {
			return nil, fmt.Errorf("read secret %s/%s: %w", s.Namespace, s.Name, err)
		}
		all = append(all, list...)
	}
	slices.SortStableFunc(all, func(a, b auth) int { return cmp.Compare(b.at, a.at) })
	matching := slices.DeleteFunc(slices.Clone(all), func(a auth) bool { return !matches(a.at, image) })
	if len(matching) == 0 && ofDockerHub(image) {
		matching = slices.DeleteFunc(all, func(a auth) bool { return a.at != "index.docker.io" })
	}
	return matching, nil
}

func ofSecret(s *corev1.Secret) (list []auth, err error) {
	switch {
	case s.Type == corev1.SecretTypeDockerConfigJson && len(s.Data[corev1.DockerConfigJsonKey]) > 0:
		list, err = parse(s.Data[corev1.DockerConfigJsonKey], true)
	case s.Type == corev1.SecretTypeDockercfg && len(s.Data[corev1.DockerConfigKey]) > 0:
		list, err = parse(s.Data[corev1.DockerConfigKey], false)
	}
	for i := range list {
		list[i].secret = string(s.UID) + "/" + s.Namespace + "/" + s.Name
	}
	return list, err
}

// parse reads docker's configuration, the newer form of which has the hosts
// below a key of their own.
func parse(b []byte, below bool) (list []auth, err error) {
	type entry struct{ Username, Password, Auth string }
	var hosts map[string]entry
	if below {
		var file struct{ Auths map[string]entry }
		err = json.Unmarshal(b, &file)
		hosts = file.Auths
	} else {
		err = json.Unmarshal(b, &hosts)
	}
	if err != nil {
		return nil, fmt.Errorf("parse credentials: %w", err)
	}
	for host, e := range hosts {
		a := auth{at: place(host), user: e.Username, password: e.Password}
		if e.Auth != "" {
			pair, err := base64.StdEncoding.DecodeString(strings.TrimRight(e.Auth, "\x00\n"))
			if err != nil {
				return nil, errors.New("parse credentials: auth is not base64")
			}
			a.user, a.password, _ = strings.Cut(strings.Trim(string(pair), "\x00"), ":")
		}
		list = append(list, a)
	}
	return list, nil
}

// place is what a key of docker's configuration stands for: a scheme, and the
// version that the registry's own path begins with, mean nothing.
func place(key string) string {
	key = strings.TrimPrefix(strings.TrimPrefix(key, "https://"), "http://")
	host, rest, _ := strings.Cut(key, "/")
	for _, version := range []string{"v1/", "v2/"} {
		rest = strings.TrimPrefix(rest, version)
	}
	if rest == "" {
		return host
	}
	return host + "/" + rest
}

// matches tells whether a credential is for an image: each part of the host
// may be a pattern, and the path must begin the image's.
func matches(at, image string) bool {
	host, dir, _ := strings.Cut(at, "/")
	imageHost, imagePath, _ := strings.Cut(image, "/")
	if !strings.HasPrefix(imagePath, dir) {
		return false
	}
	wants, wantPort := hostPort(host)
	has, port := hostPort(imageHost)
	if wantPort != port || len(wants) != len(has) {
		return false
	}
	for i := range wants {
		if ok, err := path.Match(wants[i], has[i]); err != nil || !ok {
			return false
		}
	}
	return true
}

func hostPort(s string) (parts []string, port string) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		host, port = s, ""
	}
	return strings.Split(host, "."), port
}

// ofDockerHub tells whether an image is of the registry that is meant where
// none is named.
func ofDockerHub(image string) bool {
	first, _, more := strings.Cut(image, "/")
	return !more || first == "docker.io" || first == "index.docker.io" || !strings.ContainsAny(first, ".:")
}
