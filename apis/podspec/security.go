package podspec

import (
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"

	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
	"github.com/knarr-dev/knarr/apis/volume"
)

// security checks the security context of the pod.
func (s Subject) security(at check.At) {
	sc := s.Spec.SecurityContext
	if sc == nil {
		sc = &corev1.PodSecurityContext{}
	}
	userIDs(at, sc.FSGroup, sc.RunAsUser, sc.RunAsGroup)
	for i, g := range sc.SupplementalGroups {
		at.Dot("supplementalGroups").Index(i).Wrong(g, utilvalidation.IsValidGroupID(g))
	}
	if share := s.Spec.ShareProcessNamespace; share != nil && *share && s.Spec.HostPID {
		at.Dot("shareProcessNamespace").Invalid(true, "ShareProcessNamespace and HostPID cannot both be enabled")
	}
	s.sysctls(at.Dot("sysctls"))
	if p := sc.FSGroupChangePolicy; p != nil {
		check.OneOf(at.Dot("fsGroupChangePolicy"), *p, corev1.FSGroupChangeOnRootMismatch, corev1.FSGroupChangeAlways)
	}
	seccomp(at.Dot("seccompProfile"), sc.SeccompProfile)
	windowsOptions(at.Dot("windowsOptions"), sc.WindowsOptions)
	appArmor(at.Dot("appArmorProfile"), sc.AppArmorProfile)
	if p := sc.SupplementalGroupsPolicy; p != nil {
		check.OneOf(at.Dot("supplementalGroupsPolicy"), *p, corev1.SupplementalGroupsPolicyMerge, corev1.SupplementalGroupsPolicyStrict)
	}
	if p := sc.SELinuxChangePolicy; p != nil {
		check.OneOf(at.Dot("seLinuxChangePolicy"), *p, s.seLinuxPolicies()...)
	}
}

// seLinuxPolicies are those that there are by default, or all where the pod has one already.
func (s Subject) seLinuxPolicies() []corev1.PodSELinuxChangePolicy {
	if s.Was != nil && s.Was.SecurityContext != nil && s.Was.SecurityContext.SELinuxChangePolicy != nil {
		return []corev1.PodSELinuxChangePolicy{corev1.SELinuxChangePolicyRecursive, corev1.SELinuxChangePolicyMountOption}
	}
	return []corev1.PodSELinuxChangePolicy{corev1.SELinuxChangePolicyRecursive}
}

func userIDs(at check.At, fsGroup, user, group *int64) {
	if fsGroup != nil {
		at.Dot("fsGroup").Wrong(*fsGroup, utilvalidation.IsValidGroupID(*fsGroup))
	}
	if user != nil {
		at.Dot("runAsUser").Wrong(*user, utilvalidation.IsValidUserID(*user))
	}
	if group != nil {
		at.Dot("runAsGroup").Wrong(*group, utilvalidation.IsValidGroupID(*group))
	}
}

// containerSecurity checks the security context of a container.
func (c context) containerSecurity(at check.At, sc *corev1.SecurityContext) {
	if sc == nil {
		return
	}
	userIDs(at, nil, sc.RunAsUser, sc.RunAsGroup)
	if m := sc.ProcMount; m != nil {
		check.OneOf(at.Dot("procMount"), *m, corev1.DefaultProcMount, corev1.UnmaskedProcMount)
		if *m == corev1.UnmaskedProcMount && meta.Deref(c.Spec.HostUsers, true) {
			at.Dot("procMount").Invalid(*m, "`hostUsers` must be false to use `Unmasked`")
		}
	}
	seccomp(at.Dot("seccompProfile"), sc.SeccompProfile)
	if !meta.Deref(sc.AllowPrivilegeEscalation, true) {
		if meta.Deref(sc.Privileged, false) {
			at.Invalid(check.Bare(sc), "cannot set `allowPrivilegeEscalation` to false and `privileged` to true")
		}
		if sc.Capabilities != nil {
			for _, added := range sc.Capabilities.Add {
				if added == "CAP_SYS_ADMIN" {
					at.Invalid(check.Bare(sc), "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN")
				}
			}
		}
	}
	windowsOptions(at.Dot("windowsOptions"), sc.WindowsOptions)
	appArmor(at.Dot("appArmorProfile"), sc.AppArmorProfile)
}

const (
	sysctlSegment = "[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
	sysctlLength  = 253
)

var sysctlName = regexp.MustCompile("^(" + sysctlSegment + `[\./])*` + sysctlSegment + "$")

func (s Subject) sysctls(at check.At) {
	if s.Spec.SecurityContext == nil {
		return
	}
	had := s.had(hostSysctls)
	seen := check.Set[string]{}
	for i, ctl := range s.Spec.SecurityContext.Sysctls {
		at := at.Index(i).Dot("name")
		switch {
		case ctl.Name == "":
			at.Required("")
		case len(ctl.Name) > sysctlLength || !sysctlName.MatchString(ctl.Name):
			at.Invalid(ctl.Name, "must have at most 253 characters and match regex "+sysctlName.String())
		case seen[ctl.Name]:
			at.Duplicate(ctl.Name)
		}
		seen[ctl.Name] = true
		if !had {
			hostSysctl(at, ctl.Name, s.Spec)
		}
	}
}

func hostSysctls(at check.At, spec *corev1.PodSpec) {
	if spec.SecurityContext != nil {
		for _, ctl := range spec.SecurityContext.Sysctls {
			hostSysctl(at, ctl.Name, spec)
		}
	}
}

// hostSysctl forbids a parameter of a namespace that the pod shares with its node.
func hostSysctl(at check.At, name string, spec *corev1.PodSpec) {
	key := name
	if first := strings.IndexAny(key, "./"); first >= 0 && key[first] == '/' {
		key = strings.NewReplacer(".", "/", "/", ".").Replace(key)
	}
	starts := func(prefix string) bool { return strings.HasPrefix(key, prefix) }
	switch {
	case starts("net.") && spec.HostNetwork:
		at.Invalid(name, "may not be specified when 'hostNetwork' is true")
	case (key == "kernel.sem" || starts("kernel.shm") || starts("kernel.msg") || starts("fs.mqueue.")) && spec.HostIPC:
		at.Invalid(name, "may not be specified when 'hostIPC' is true")
	}
}

func seccomp(at check.At, p *corev1.SeccompProfile) {
	if p == nil {
		return
	}
	if p.Type == "" {
		at.Dot("type").Required("type is required when seccompProfile is set")
	} else {
		check.Listed(at.Dot("type"), p.Type,
			corev1.SeccompProfileTypeLocalhost, corev1.SeccompProfileTypeRuntimeDefault, corev1.SeccompProfileTypeUnconfined)
	}
	local := at.Dot("localhostProfile")
	switch {
	case p.Type == corev1.SeccompProfileTypeLocalhost && p.LocalhostProfile == nil:
		local.Required("must be set when seccomp type is Localhost")
	case p.Type == corev1.SeccompProfileTypeLocalhost:
		volume.Inside(local, *p.LocalhostProfile)
	case p.LocalhostProfile != nil:
		local.Invalid(check.Bare(p), "can only be set when seccomp type is Localhost")
	}
}

func appArmor(at check.At, p *corev1.AppArmorProfile) {
	const longest = 4095
	if p == nil {
		return
	}
	local := at.Dot("localhostProfile")
	switch p.Type {
	case corev1.AppArmorProfileTypeLocalhost:
		const required = "must be set when AppArmor type is Localhost"
		switch {
		case p.LocalhostProfile == nil:
			local.Required(required)
		case strings.TrimSpace(*p.LocalhostProfile) != *p.LocalhostProfile:
			local.Invalid(*p.LocalhostProfile, "must not be padded with whitespace")
		case *p.LocalhostProfile == "":
			local.Required(required)
		}
		if len(meta.Deref(p.LocalhostProfile, "")) > longest {
			local.TooLong(longest)
		}
	case corev1.AppArmorProfileTypeRuntimeDefault, corev1.AppArmorProfileTypeUnconfined:
		if p.LocalhostProfile != nil {
			local.Invalid(p.LocalhostProfile, "can only be set when AppArmor type is Localhost")
		}
	case "":
		at.Dot("type").Required("type is required when appArmorProfile is set")
	default:
		check.Listed(at.Dot("type"), p.Type,
			corev1.AppArmorProfileTypeLocalhost, corev1.AppArmorProfileTypeRuntimeDefault, corev1.AppArmorProfileTypeUnconfined)
	}
}

// Annotations that came before the fields.
const (
	seccompPod       = "seccomp.security.alpha.kubernetes.io/pod"
	seccompContainer = "container.seccomp.security.alpha.kubernetes.io/"
)

func seccompAnnotations(at check.At, annotations map[string]string) {
	profile := func(at check.At, p string) {
		if local, ok := strings.CutPrefix(p, "localhost/"); ok {
			volume.Inside(at, local)
		} else if p != "runtime/default" && p != "docker/default" && p != "unconfined" {
			at.Invalid(p, "must be a valid seccomp profile")
		}
	}
	if p, ok := annotations[seccompPod]; ok {
		profile(at.Dot(seccompPod), p)
	}
	for key, p := range check.Sorted(annotations) {
		if strings.HasPrefix(key, seccompContainer) {
			profile(at.Dot(key), p)
		}
	}
}

func appArmorAnnotations(at check.At, annotations map[string]string, spec *corev1.PodSpec) {
	for key, p := range check.Sorted(annotations) {
		name, ok := strings.CutPrefix(key, corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix)
		if !ok {
			continue
		}
		found := false
		for _, c := range Containers(at, spec) {
			found = found || c.Name == name
		}
		if !found {
			at.Key(key).Invalid(name, "container not found")
		}
		if p != "" && p != "runtime/default" && p != "unconfined" && !strings.HasPrefix(p, "localhost/") {
			at.Key(key).Invalid(p, `invalid AppArmor profile name: "`+p+`"`)
		}
	}
}

// MatchAnnotations demands that where a profile is named by a field and by an
// annotation, the two agree.
func (s Subject) MatchAnnotations(at check.At) {
	annotations := s.Meta.Annotations
	var pod corev1.PodSecurityContext
	if s.Spec.SecurityContext != nil {
		pod = *s.Spec.SecurityContext
	}
	if p, ok := annotations[seccompPod]; ok && pod.SeccompProfile != nil {
		agree(at.Dot("securityContext.seccompProfile"), "seccomp", p, string(pod.SeccompProfile.Type), pod.SeccompProfile.LocalhostProfile)
	}
	for at, c := range Containers(at, s.Spec) {
		if p, ok := annotations[seccompContainer+c.Name]; ok && c.SecurityContext != nil && c.SecurityContext.SeccompProfile != nil {
			profile := c.SecurityContext.SeccompProfile
			agree(at.Dot("securityContext.seccompProfile"), "seccomp", p, string(profile.Type), profile.LocalhostProfile)
		}
	}
	if s.Spec.OS != nil && s.Spec.OS.Name == corev1.Windows {
		return
	}
	for at, c := range Containers(at, s.Spec) {
		profile := pod.AppArmorProfile
		if c.SecurityContext != nil && c.SecurityContext.AppArmorProfile != nil {
			profile = c.SecurityContext.AppArmorProfile
		}
		if p, ok := annotations[corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix+c.Name]; ok && profile != nil {
			agree(at.Dot("securityContext.appArmorProfile"), "apparmor", p, string(profile.Type), profile.LocalhostProfile)
		}
	}
}

func agree(at check.At, what, annotation, typ string, local *string) {
	differs := func(field, noun string) {
		at.Dot(field).Forbidden(what + " " + noun + " in annotation and field must match")
	}
	name, isLocal := strings.CutPrefix(annotation, "localhost/")
	switch typ {
	case "Unconfined":
		if annotation != "unconfined" {
			differs("type", "type")
		}
	case "RuntimeDefault":
		if annotation != "runtime/default" && (what != "seccomp" || annotation != "docker/default") {
			differs("type", "type")
		}
	case "Localhost":
		if !isLocal {
			differs("type", "type")
		} else if local == nil || name != *local {
			differs("localhostProfile", "profile")
		}
	}
}
