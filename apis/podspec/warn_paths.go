package podspec

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
)

// A file is a path in a volume, and what puts it there where there are several.
type file struct{ path, source string }

func (f file) String() string {
	if f.source == "" {
		return fmt.Sprintf("%q", f.path)
	}
	return fmt.Sprintf("%q (%s)", f.path, f.source)
}

// warnPaths warns of files in one volume of which one is, or is in, the other.
func warnPaths(w *check.Warnings, volumes []corev1.Volume) {
	for _, v := range volumes {
		switch {
		case v.ConfigMap != nil:
			warnOverlaps(w, v.Name, fmt.Sprintf("ConfigMap %q", v.ConfigMap.Name), keyFiles("", v.ConfigMap.Items))
		case v.Secret != nil:
			warnOverlaps(w, v.Name, fmt.Sprintf("Secret %q", v.Secret.SecretName), keyFiles("", v.Secret.Items))
		case v.DownwardAPI != nil:
			warnOverlaps(w, v.Name, "DownwardAPI", fieldFiles("", v.DownwardAPI.Items))
		case v.Projected != nil:
			var files []file
			for _, s := range v.Projected.Sources {
				if s == (corev1.VolumeProjection{}) {
					w.Add(fmt.Sprintf("volume %q (Projected) has no sources provided", v.Name))
				}
				files = append(files, sourceFiles(&s)...)
			}
			warnOverlaps(w, v.Name, "Projected", files)
		}
	}
}

func sourceFiles(s *corev1.VolumeProjection) []file {
	switch {
	case s.ConfigMap != nil && s.ConfigMap.Items != nil:
		return keyFiles(fmt.Sprintf("ConfigMap %q", s.ConfigMap.Name), s.ConfigMap.Items)
	case s.Secret != nil && s.Secret.Items != nil:
		return keyFiles(fmt.Sprintf("Secret %q", s.Secret.Name), s.Secret.Items)
	case s.DownwardAPI != nil && s.DownwardAPI.Items != nil:
		return fieldFiles("DownwardAPI", s.DownwardAPI.Items)
	case s.ServiceAccountToken != nil:
		return []file{{s.ServiceAccountToken.Path, "ServiceAccountToken"}}
	case s.ClusterTrustBundle != nil:
		name := meta.Deref(s.ClusterTrustBundle.Name, meta.Deref(s.ClusterTrustBundle.SignerName, ""))
		return []file{{s.ClusterTrustBundle.Path, fmt.Sprintf("ClusterTrustBundle %q", name)}}
	}
	return nil
}

func keyFiles(source string, items []corev1.KeyToPath) (files []file) {
	for _, k := range items {
		files = append(files, file{k.Path, source})
	}
	return files
}

func fieldFiles(source string, items []corev1.DownwardAPIVolumeFile) (files []file) {
	for _, f := range items {
		files = append(files, file{f.Path, source})
	}
	return files
}

func warnOverlaps(w *check.Warnings, volume, of string, files []file) {
	for i := range files {
		files[i].path = strings.TrimRight(files[i].path, "/")
		for _, other := range files[:i] {
			a, b := files[i].path+"/", other.path+"/"
			if a != "/" && b != "/" && (strings.HasPrefix(a, b) || strings.HasPrefix(b, a)) {
				w.Add(fmt.Sprintf("volume %q (%s): overlapping paths: %s with %s", volume, of, files[i], other))
			}
		}
	}
}
