package podspec

import (
	"fmt"
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
	"github.com/knarr-dev/knarr/apis/volume"
)

// oldAnnotations once meant something.
var oldAnnotations = map[string]string{
	"scheduler.alpha.kubernetes.io/critical-pod":  `non-functional in v1.16+; use the "priorityClassName" field instead`,
	"security.alpha.kubernetes.io/sysctls":        `non-functional in v1.11+; use the "sysctls" field instead`,
	"security.alpha.kubernetes.io/unsafe-sysctls": `non-functional in v1.11+; use the "sysctls" field instead`,
}

// oldVolumes are kinds of volume that once were there.
var oldVolumes = []struct {
	name, since string
	set         func(v *corev1.Volume) bool
}{
	{"photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+", func(v *corev1.Volume) bool { return v.PhotonPersistentDisk != nil }},
	{"gitRepo", "deprecated in v1.11, and disabled by default in v1.33+", func(v *corev1.Volume) bool { return v.GitRepo != nil }},
	{"scaleIO", "deprecated in v1.16, non-functional in v1.22+", func(v *corev1.Volume) bool { return v.ScaleIO != nil }},
	{"flocker", "deprecated in v1.22, non-functional in v1.25+", func(v *corev1.Volume) bool { return v.Flocker != nil }},
	{"storageOS", "deprecated in v1.22, non-functional in v1.25+", func(v *corev1.Volume) bool { return v.StorageOS != nil }},
	{"quobyte", "deprecated in v1.22, non-functional in v1.25+", func(v *corev1.Volume) bool { return v.Quobyte != nil }},
	{"glusterfs", "deprecated in v1.25, non-functional in v1.26+", func(v *corev1.Volume) bool { return v.Glusterfs != nil }},
	{"cephfs", "deprecated in v1.28, non-functional in v1.31+", func(v *corev1.Volume) bool { return v.CephFS != nil }},
	{"rbd", "deprecated in v1.28, non-functional in v1.31+", func(v *corev1.Volume) bool { return v.RBD != nil }},
}

// Warn tells what will surprise in a spec that is valid. at is the place of
// the pod or the template itself.
func (s Subject) Warn(at check.At) (w check.Warnings) {
	spec, annotations := s.Spec, at.Dot("metadata.annotations")
	s.warnScheduling(&w, at.Dot("spec"))
	for key, text := range check.Sorted(oldAnnotations) {
		if _, ok := s.Meta.Annotations[key]; ok {
			w.At(annotations.Key(key), "%s", text)
		}
	}
	for i := range spec.Volumes {
		v, at := &spec.Volumes[i], at.Dot("spec.volumes").Index(i)
		for _, old := range oldVolumes {
			if old.set(v) {
				w.At(at.Dot(old.name), "%s", old.since)
			}
		}
		if v.Ephemeral != nil && v.Ephemeral.VolumeClaimTemplate != nil {
			volume.WarnClaim(&w, at.Dot("ephemeral.volumeClaimTemplate.spec"), &v.Ephemeral.VolumeClaimTemplate.Spec)
		}
	}
	warnPaths(&w, spec.Volumes)
	at = at.Dot("spec")
	warnRepeated(&w, at, spec)
	for _, name := range byteResources {
		meta.WarnFraction(&w, at.Dot("overhead"), spec.Overhead, name)
	}
	s.warnContainers(&w, at, annotations)
	warnPorts(&w, at, spec)
	if meta.Deref(spec.TerminationGracePeriodSeconds, 0) < 0 {
		w.At(at.Dot("terminationGracePeriodSeconds"), "must be >= 0; negative values are invalid and will be treated as 1")
	}
	warnAffinity(&w, at.Dot("affinity"), spec.Affinity)
	if spec.DNSConfig != nil {
		for i, ns := range spec.DNSConfig.Nameservers {
			meta.WarnIP(&w, at.Dot("dnsConfig.nameservers").Index(i), ns)
		}
	}
	for i, alias := range spec.HostAliases {
		meta.WarnIP(&w, at.Dot("hostAliases").Index(i).Dot("ip"), alias.IP)
	}
	return w
}

// byteResources are counted in bytes.
var byteResources = []corev1.ResourceName{corev1.ResourceMemory, corev1.ResourceEphemeralStorage}

func (s Subject) warnScheduling(w *check.Warnings, at check.At) {
	spec := s.Spec
	for key := range check.Sorted(spec.NodeSelector) {
		if instead := meta.OldNodeLabel(key); instead != "" {
			w.At(at.Dot("nodeSelector").Key(key), "%s", instead)
		}
	}
	if spec.Affinity != nil && spec.Affinity.NodeAffinity != nil {
		n, at := spec.Affinity.NodeAffinity, at.Dot("affinity.nodeAffinity")
		if required := n.RequiredDuringSchedulingIgnoredDuringExecution; required != nil {
			at := at.Dot("requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms")
			for i := range required.NodeSelectorTerms {
				meta.WarnNodeSelectorTerm(w, at.Index(i), &required.NodeSelectorTerms[i], false)
			}
		}
		for i := range n.PreferredDuringSchedulingIgnoredDuringExecution {
			at := at.Dot("preferredDuringSchedulingIgnoredDuringExecution").Index(i).Dot("preference")
			meta.WarnNodeSelectorTerm(w, at, &n.PreferredDuringSchedulingIgnoredDuringExecution[i].Preference, true)
		}
	}
	for i, c := range spec.TopologySpreadConstraints {
		at := at.Dot("topologySpreadConstraints").Index(i)
		if instead := meta.OldNodeLabel(c.TopologyKey); instead != "" {
			w.At(at.Dot("topologyKey"), "%s is %s", c.TopologyKey, instead)
		}
		if c.LabelSelector == nil {
			w.At(at.Dot("labelSelector"), selectsNothing)
		}
	}
}

const selectsNothing = "a null labelSelector results in matching no pod"

func warnAffinity(w *check.Warnings, at check.At, a *corev1.Affinity) {
	if a == nil {
		return
	}
	terms := func(at check.At, required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm) {
		for i, t := range required {
			if t.LabelSelector == nil {
				w.At(at.Dot("requiredDuringSchedulingIgnoredDuringExecution").Index(i).Dot("labelSelector"), selectsNothing)
			}
		}
		for i, t := range preferred {
			if t.PodAffinityTerm.LabelSelector == nil {
				w.At(at.Dot("preferredDuringSchedulingIgnoredDuringExecution").Index(i).Dot("podAffinityTerm.labelSelector"), selectsNothing)
			}
		}
	}
	if p := a.PodAffinity; p != nil {
		terms(at.Dot("podAffinity"), p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if p := a.PodAntiAffinity; p != nil {
		terms(at.Dot("podAntiAffinity"), p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution)
	}
}

// warnRepeated warns of what is told twice where once would do.
func warnRepeated(w *check.Warnings, at check.At, spec *corev1.PodSpec) {
	ips, secrets := check.Set[string]{}, check.Set[string]{}
	for i, alias := range spec.HostAliases {
		if ips.Twice(alias.IP) {
			w.At(at.Dot("hostAliases").Index(i).Dot("ip"), "duplicate ip %q", alias.IP)
		}
	}
	for i, s := range spec.ImagePullSecrets {
		if secrets.Twice(s.Name) {
			w.At(at.Dot("imagePullSecrets").Index(i).Dot("name"), "duplicate name %q", s.Name)
		}
	}
	for i, s := range spec.ImagePullSecrets {
		if s.Name == "" {
			w.At(at.Dot("imagePullSecrets").Index(i).Dot("name"), `invalid empty name ""`)
		}
	}
}

func (s Subject) warnContainers(w *check.Warnings, at, annotations check.At) {
	const old = `non-functional in v1.27+; use the "seccompProfile" field instead`
	var pod corev1.PodSecurityContext
	if s.Spec.SecurityContext != nil {
		pod = *s.Spec.SecurityContext
	}
	if _, ok := s.Meta.Annotations[seccompPod]; ok && pod.SeccompProfile == nil {
		w.At(annotations.Key(seccompPod), old)
	}
	for at, c := range Containers(at, s.Spec) {
		var own corev1.SecurityContext
		if c.SecurityContext != nil {
			own = *c.SecurityContext
		}
		if _, ok := s.Meta.Annotations[seccompContainer+c.Name]; ok && own.SeccompProfile == nil {
			w.At(annotations.Key(seccompContainer+c.Name), old)
		}
		key := corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix + c.Name
		if text, ok := s.Meta.Annotations[key]; ok && s.Template && own.AppArmorProfile == nil {
			if pod.AppArmorProfile == nil || !reflect.DeepEqual(pod.AppArmorProfile, AppArmorProfile(text)) {
				w.At(annotations.Key(key), OldAppArmor)
			}
		}
		for _, name := range byteResources {
			meta.WarnFraction(w, at.Dot("resources.limits"), c.Resources.Limits, name)
			meta.WarnFraction(w, at.Dot("resources.requests"), c.Resources.Requests, name)
		}
		names := check.Set[string]{}
		for i, e := range c.Env {
			// A variable may be added to: PATH=$(PATH):/more.
			ref := "$(" + e.Name + ")"
			adds := e.ValueFrom == nil && e.Value != ref && strings.Contains(e.Value, ref)
			if names.Twice(e.Name) && !adds {
				w.At(at.Dot("env").Index(i), "hides previous definition of %q, which may be dropped when using apply", e.Name)
			}
		}
	}
}

// OldAppArmor is what to say of the annotation.
const OldAppArmor = `deprecated since v1.30; use the "appArmorProfile" field instead`

// AppArmorProfile is the profile that an annotation names, nil where it names none.
func AppArmorProfile(annotation string) *corev1.AppArmorProfile {
	switch local, ok := strings.CutPrefix(annotation, "localhost/"); {
	case annotation == "unconfined":
		return &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeUnconfined}
	case annotation == "runtime/default":
		return &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeRuntimeDefault}
	case ok && local != "":
		return &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeLocalhost, LocalhostProfile: &local}
	}
	return nil
}

func warnPorts(w *check.Warnings, at check.At, spec *corev1.PodSpec) {
	type place struct {
		at   string
		port corev1.ContainerPort
	}
	seen := map[string][]place{}
	for at, c := range Containers(at, spec) {
		for i, p := range c.Ports {
			at := at.Dot("ports").Index(i)
			if p.HostIP != "" && p.HostPort == 0 {
				w.At(at, "hostIP set without hostPort: %+v", p)
			}
			key := fmt.Sprintf("%d/%s", p.ContainerPort, p.Protocol)
			for _, other := range seen[key] {
				switch {
				case p.HostIP == other.port.HostIP && p.HostPort == other.port.HostPort:
					w.At(at, "duplicate port definition with %s", other.at)
				case p.HostPort == 0 || other.port.HostPort == 0:
					w.At(at, "overlapping port definition with %s", other.at)
				case p.HostPort == other.port.HostPort && (p.HostIP == "") != (other.port.HostIP == ""):
					w.At(at, "dangerously ambiguous port definition with %s", other.at)
				}
			}
			seen[key] = append(seen[key], place{at.String(), p})
		}
	}
	names := map[string]string{}
	for at, c := range Containers(at, spec) {
		for i, p := range c.Ports {
			at := at.Dot("ports").Index(i)
			if other, twice := names[p.Name]; twice {
				w.At(at, "duplicate port name %q with %s, services and probes that select ports by name will use %s", p.Name, other, other)
			} else if p.Name != "" {
				names[p.Name] = at.String()
			}
		}
	}
}
