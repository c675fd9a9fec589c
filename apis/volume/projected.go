package volume

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
)

// podFields are the fields of a pod that a file may hold, besides one label
// or annotation; envFields those that a variable may hold.
var (
	podFields = []string{"metadata.name", "metadata.namespace", "metadata.labels", "metadata.annotations", "metadata.uid"}
	envFields = []string{
		"metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
		"status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs",
	}
	// allFields are those that a reference can name at all.
	allFields = append([]string{
		"metadata.labels", "metadata.annotations", "spec.restartPolicy", "spec.schedulerName", "status.phase", "spec.host",
	}, envFields...)
)

func downwardAPI(at check.At, s *corev1.DownwardAPIVolumeSource) {
	at = at.Dot("downwardAPI")
	mode(at.Dot("defaultMode"), s.DefaultMode)
	for i := range s.Items {
		downwardFile(at, &s.Items[i]) // as upstream: which item is not told
	}
}

func downwardFile(at check.At, f *corev1.DownwardAPIVolumeFile) {
	at.Dot("path").Present(f.Path)
	File(at.Dot("path"), f.Path)
	switch {
	case f.FieldRef != nil:
		fieldRef(at.Dot("fieldRef"), f.FieldRef, podFields)
		if f.ResourceFieldRef != nil {
			at.Invalid("resource", "fieldRef and resourceFieldRef can not be specified simultaneously")
		}
	case f.ResourceFieldRef != nil:
		ResourceRef(at.Dot("resourceFieldRef"), f.ResourceFieldRef, true)
	default:
		at.Required("one of fieldRef and resourceFieldRef is required")
	}
	mode(at.Dot("mode"), f.Mode)
}

// FieldRef demands a field of the pod that an environment variable may hold.
func FieldRef(at check.At, r *corev1.ObjectFieldSelector) { fieldRef(at, r, envFields) }

func fieldRef(at check.At, r *corev1.ObjectFieldSelector, allowed []string) {
	if !at.Dot("apiVersion").Present(r.APIVersion) || !at.Dot("fieldPath").Present(r.FieldPath) {
		return
	}
	unknown := func(err string) {
		at.Dot("fieldPath").Invalid(r.FieldPath, "error converting fieldPath: "+err)
	}
	path, key, subscripted := strings.Cut(strings.TrimSuffix(r.FieldPath, "']"), "['")
	subscripted = subscripted && strings.HasSuffix(r.FieldPath, "']") && path != ""
	switch {
	case r.APIVersion != "v1":
		unknown("unsupported pod version: " + r.APIVersion)
	case subscripted && path == "metadata.annotations":
		at.Qualified(strings.ToLower(key))
	case subscripted && path == "metadata.labels":
		at.Qualified(key)
	case subscripted:
		unknown("field label does not support subscript: " + r.FieldPath)
	case !slices.Contains(allFields, r.FieldPath):
		unknown("field label not supported: " + r.FieldPath)
	default:
		name := r.FieldPath
		if name == "spec.host" {
			name = "spec.nodeName"
		}
		check.OneOf(at.Dot("fieldPath"), name, allowed...)
	}
}

// divisors are the units in which a resource may be told.
var divisors = []string{"1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"}

// ResourceRef demands an amount that a container may use or asks for. In a
// file it must be said of which container.
func ResourceRef(at check.At, r *corev1.ResourceFieldSelector, file bool) {
	pages := strings.HasPrefix(r.Resource, "requests.hugepages-") || strings.HasPrefix(r.Resource, "limits.hugepages-")
	switch {
	case file && r.ContainerName == "":
		at.Dot("containerName").Required("")
		return
	case r.Resource == "":
		at.Dot("resource").Required("")
		return
	case !pages:
		if !check.OneOf(at.Dot("resource"), r.Resource, "limits.cpu", "limits.memory", "limits.ephemeral-storage",
			"requests.cpu", "requests.memory", "requests.ephemeral-storage") {
			return
		}
	}
	if r.Divisor.IsZero() {
		return
	}
	units, of := divisors, map[string]string{"cpu": "cpu", "memory": "memory", "ephemeral-storage": "local ephemeral storage"}
	_, name, _ := strings.Cut(r.Resource, ".")
	text := strings.Join(units, ", ")
	if name == "cpu" {
		units, text = []string{"1m", "1"}, "1m and 1"
	}
	if pages {
		of[name] = "hugepages"
	}
	if !slices.Contains(units, r.Divisor.String()) {
		at.Dot("divisor").Invalid(r.Resource, fmt.Sprintf("only divisor's values %s are supported with the %s resource", text, of[name]))
	}
}

// projected checks sources that lie together in one directory, where no two
// may have one path.
func projected(at check.At, v *podVolume) {
	at = at.Dot("projected")
	mode(at.Dot("defaultMode"), v.Projected.DefaultMode)
	paths := check.Set[string]{}
	lie := func(path, of string) {
		if path != "" && paths.Twice(path) {
			at.Invalid(of, "conflicting duplicate paths")
		}
	}
	for i, s := range v.Projected.Sources {
		here, count := at.Dot("sources").Index(i), 0
		each := func(set bool) bool {
			if set {
				count++
			}
			return set
		}
		if each(s.Secret != nil) {
			projectedKeys(here.Dot("secret"), s.Secret.Name, s.Secret.Items, lie)
		}
		if each(s.ConfigMap != nil) {
			projectedKeys(here.Dot("configMap"), s.ConfigMap.Name, s.ConfigMap.Items, lie)
		}
		if each(s.DownwardAPI != nil) {
			for i := range s.DownwardAPI.Items {
				f := &s.DownwardAPI.Items[i]
				downwardFile(here.Dot("downwardAPI"), f)
				lie(f.Path, f.Path)
			}
		}
		if each(s.ServiceAccountToken != nil) {
			serviceAccountToken(at, here.Dot("serviceAccountToken"), s.ServiceAccountToken, v.in.AnyTokenPath)
		}
		if each(s.ClusterTrustBundle != nil) {
			trustBundle(here.Dot("clusterTrustBundle"), s.ClusterTrustBundle)
			if path := s.ClusterTrustBundle.Path; paths.Twice(path) {
				at.Invalid(path, "conflicting duplicate paths")
			}
		}
		if count > 1 {
			here.Forbidden("may not specify more than 1 volume type per source")
		}
	}
}

func projectedKeys(at check.At, name string, items []corev1.KeyToPath, lie func(path, of string)) {
	at.Dot("name").Present(name)
	for i := range items {
		key(at.Dot("items").Index(i), &items[i])
		lie(items[i].Path, name)
	}
}

// serviceAccountToken tells what is wrong with the path at the volume, as upstream does.
func serviceAccountToken(volume, at check.At, t *corev1.ServiceAccountTokenProjection, anywhere bool) {
	switch seconds := meta.Deref(t.ExpirationSeconds, 3600); {
	case seconds < 600:
		at.Dot("expirationSeconds").Invalid(seconds, "may not specify a duration less than 10 minutes")
	case seconds > 1<<32:
		at.Dot("expirationSeconds").Invalid(seconds, "may not specify a duration larger than 2^32 seconds")
	}
	if volume.Dot("path").Present(t.Path) && !anywhere {
		File(volume.Dot("path"), t.Path)
	}
}

// trustBundle is only met in pods stored by a server with that feature: here
// the field is dropped.
func trustBundle(at check.At, b *corev1.ClusterTrustBundleProjection) {
	at.Dot("path").Present(b.Path)
	File(at.Dot("path"), b.Path)
}
