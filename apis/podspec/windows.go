package podspec

import (
	"fmt"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
)

// onlyLinux forbids in a pod for Linux what is for Windows.
func onlyLinux(at check.At, spec *corev1.PodSpec) {
	const detail = "windows options cannot be set for a linux pod"
	if sc := spec.SecurityContext; sc != nil && sc.WindowsOptions != nil {
		at.Dot("securityContext.windowsOptions").Forbidden(detail)
	}
	for at, c := range Containers(at, spec) {
		if c.SecurityContext != nil && c.SecurityContext.WindowsOptions != nil {
			at.Dot("securityContext.windowsOptions").Forbidden(detail)
		}
	}
}

// A part is a field that may not be set in some pods.
type part struct {
	name string
	set  bool
}

// onlyWindows forbids in a pod for Windows what is for Linux.
func onlyWindows(at check.At, spec *corev1.PodSpec) {
	forbid := func(at check.At, parts ...part) {
		for _, p := range parts {
			if p.set {
				at.Dot(p.name).Forbidden("cannot be set for a windows pod")
			}
		}
	}
	if sc := spec.SecurityContext; sc != nil {
		forbid(at,
			part{"securityContext.appArmorProfile", sc.AppArmorProfile != nil},
			part{"securityContext.seLinuxOptions", sc.SELinuxOptions != nil},
			part{"hostUsers", spec.HostUsers != nil},
			part{"hostPID", spec.HostPID},
			part{"hostIPC", spec.HostIPC},
			part{"securityContext.seccompProfile", sc.SeccompProfile != nil},
			part{"securityContext.fsGroup", sc.FSGroup != nil},
			part{"securityContext.fsGroupChangePolicy", sc.FSGroupChangePolicy != nil},
			part{"securityContext.sysctls", len(sc.Sysctls) > 0},
			part{"shareProcessNamespace", spec.ShareProcessNamespace != nil},
			part{"securityContext.runAsUser", sc.RunAsUser != nil},
			part{"securityContext.runAsGroup", sc.RunAsGroup != nil},
			part{"securityContext.supplementalGroups", sc.SupplementalGroups != nil},
			part{"securityContext.supplementalGroupsPolicy", sc.SupplementalGroupsPolicy != nil},
			part{"securityContext.seLinuxChangePolicy", sc.SELinuxChangePolicy != nil},
		)
	}
	for at, c := range Containers(at, spec) {
		if sc := c.SecurityContext; sc != nil {
			forbid(at.Dot("securityContext"),
				part{"appArmorProfile", sc.AppArmorProfile != nil},
				part{"seLinuxOptions", sc.SELinuxOptions != nil},
				part{"seccompProfile", sc.SeccompProfile != nil},
				part{"capabilities", sc.Capabilities != nil},
				part{"readOnlyRootFilesystem", sc.ReadOnlyRootFilesystem != nil},
				part{"privileged", sc.Privileged != nil},
				part{"allowPrivilegeEscalation", sc.AllowPrivilegeEscalation != nil},
				part{"procMount", sc.ProcMount != nil},
				part{"runAsUser", sc.RunAsUser != nil},
				part{"runAsGroup", sc.RunAsGroup != nil},
			)
		}
	}
}

// hostProcess demands that containers run as processes of their node all or none.
func hostProcess(at check.At, spec *corev1.PodSpec) {
	var pod *bool
	if sc := spec.SecurityContext; sc != nil && sc.WindowsOptions != nil {
		pod = sc.WindowsOptions.HostProcess
	}
	all, count := 0, 0
	for at, c := range Containers(at, spec) {
		all++
		own := pod
		if sc := c.SecurityContext; sc != nil && sc.WindowsOptions != nil && sc.WindowsOptions.HostProcess != nil {
			own = sc.WindowsOptions.HostProcess
			if pod != nil && *pod != *own {
				at.Dot("securityContext.windowsOptions.hostProcess").
					Invalid(*own, fmt.Sprintf("pod hostProcess value must be identical if both are specified, was %v", *pod))
			}
		}
		if meta.Deref(own, false) {
			count++
		}
	}
	if count == 0 {
		return
	}
	if count != all {
		at.Invalid("", "If pod contains any hostProcess containers then all containers must be HostProcess containers")
	}
	if !spec.HostNetwork {
		at.Dot("hostNetwork").Invalid(false, "hostNetwork must be true if pod contains any hostProcess containers")
	}
}

// Lengths that Windows allows.
const (
	longestCredentialSpec = 64 << 10
	longestDomain         = 256
	longestUser           = 104
)

var (
	control   = regexp.MustCompile(`[[:cntrl:]]+`)
	netBIOS   = regexp.MustCompile(`^[^\\/:\*\?"<>|\.][^\\/:\*\?"<>|]{0,14}$`)
	dnsDomain = regexp.MustCompile(`^[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*$`)
	noUser    = regexp.MustCompile(`["/\\:;|=,\+\*\?<>@\[\]]`)
	blank     = regexp.MustCompile(`^[\. ]+$`)
)

func windowsOptions(at check.At, o *corev1.WindowsSecurityContextOptions) {
	if o == nil {
		return
	}
	if o.GMSACredentialSpecName != nil {
		at.Dot("gmsaCredentialSpecName").Subdomain(*o.GMSACredentialSpecName)
	}
	if s := o.GMSACredentialSpec; s != nil {
		switch at := at.Dot("gmsaCredentialSpec"); {
		case *s == "":
			at.Invalid(s, "gmsaCredentialSpec cannot be an empty string")
		case len(*s) > longestCredentialSpec:
			at.Invalid(s, "gmsaCredentialSpec size must be under 64 KiB")
		}
	}
	if o.RunAsUserName != nil {
		windowsUser(at.Dot("runAsUserName"), *o.RunAsUserName)
	}
}

// windowsUser demands the name of a user, with a domain or without: DOMAIN\user.
func windowsUser(at check.At, name string) {
	domain, user, inDomain := strings.Cut(name, `\`)
	if !inDomain {
		domain, user = "", name
	}
	say := func(detail string) { at.Invalid(name, "runAsUserName"+detail) }
	switch {
	case name == "":
		say(" cannot be an empty string")
		return
	case control.MatchString(name):
		say(" cannot contain control characters")
		return
	case strings.Contains(user, `\`):
		say(" cannot contain more than one backslash")
		return
	}
	if len(domain) >= longestDomain {
		say("'s Domain length must be under 256 characters")
	}
	if inDomain && !netBIOS.MatchString(domain) && !dnsDomain.MatchString(domain) {
		say("'s Domain doesn't match the NetBios nor the DNS format")
	}
	if user == "" {
		say("'s User cannot be empty")
	} else if len(user) > longestUser {
		say("'s User length must not be longer than 104 characters")
	}
	if blank.MatchString(user) {
		say("'s User cannot contain only periods or spaces")
	}
	if noUser.MatchString(user) {
		say(`'s User cannot contain the following characters: "/\:;|=,+*?<>@[]`)
	}
}
