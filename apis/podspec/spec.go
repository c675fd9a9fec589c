package podspec

import (
	"fmt"
	"math"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"

	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
)

// resourceClaims demands that each claim is named once, and refers to one thing.
func (s Subject) resourceClaims(at check.At) {
	names := check.Set[string]{}
	for i, c := range s.Spec.ResourceClaims {
		if _, mirror := s.Meta.Annotations[corev1.MirrorPodAnnotationKey]; mirror && !s.Template {
			check.Root(at).Forbidden("static pods do not support resource claims")
			continue
		}
		at := at.Index(i)
		switch name := at.Dot("name"); {
		case c.Name == "":
			name.Required("")
		case names.Twice(c.Name):
			name.Duplicate(c.Name)
		default:
			name.Label(c.Name)
		}
		switch {
		case c.ResourceClaimName != nil && c.ResourceClaimTemplateName != nil:
			at.Invalid(check.Bare(c), "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified")
		case c.ResourceClaimName == nil && c.ResourceClaimTemplateName == nil:
			at.Invalid(check.Bare(c), "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`")
		}
		if c.ResourceClaimName != nil {
			meta.Name(at.Dot("resourceClaimName"), *c.ResourceClaimName)
		}
		if c.ResourceClaimTemplateName != nil {
			meta.Name(at.Dot("resourceClaimTemplateName"), *c.ResourceClaimTemplateName)
		}
	}
}

// host demands of a pod on the network of its node that it takes the ports that it has.
func (s Subject) host(at check.At) {
	if !s.Spec.HostNetwork {
		return
	}
	for i, c := range s.Spec.Containers {
		for j, p := range c.Ports {
			if (!s.Template || p.HostPort != 0) && p.HostPort != p.ContainerPort {
				at.Dot("containers").Index(i).Dot("ports").Index(j).Dot("hostPort").
					Invalid(p.HostPort, "must match `containerPort` when `hostNetwork` is true")
			}
		}
	}
}

func dnsConfig(at check.At, spec *corev1.PodSpec) {
	const servers, paths, characters = 3, 32, 2048
	c := spec.DNSConfig
	if spec.DNSPolicy == corev1.DNSNone && c == nil {
		at.Required("must provide `dnsConfig` when `dnsPolicy` is None")
		return
	}
	if c == nil {
		return
	}
	nameservers, searches := at.Dot("nameservers"), at.Dot("searches")
	if spec.DNSPolicy == corev1.DNSNone && len(c.Nameservers) == 0 {
		nameservers.Required("must provide at least one DNS nameserver when `dnsPolicy` is None")
		return
	}
	if len(c.Nameservers) > servers {
		nameservers.Invalid(c.Nameservers, fmt.Sprintf("must not have more than %d nameservers", servers))
	}
	for i, ns := range c.Nameservers {
		meta.IP(nameservers.Index(i), ns)
	}
	if len(c.Searches) > paths {
		searches.Invalid(c.Searches, fmt.Sprintf("must not have more than %d search paths", paths))
	}
	if len(strings.Join(c.Searches, " ")) > characters {
		searches.Invalid(c.Searches, fmt.Sprintf("must not have more than %d characters (including spaces) in the search list", characters))
	}
	for i, domain := range c.Searches {
		if domain != "." {
			domain = strings.TrimSuffix(domain, ".")
			searches.Index(i).Wrong(domain, utilvalidation.IsDNS1123SubdomainWithUnderscore(domain))
		}
	}
	for i, o := range c.Options {
		if o.Name == "" {
			at.Dot("options").Index(i).Required("must not be empty")
		}
	}
}

// gates checks what a pod waits for before it is ready, or scheduled.
func (s Subject) gates(at check.At) {
	for i, g := range s.Spec.ReadinessGates {
		at.Dot("readinessGates").Index(i).Dot("conditionType").Qualified(string(g.ConditionType))
	}
	seen := check.Set[string]{}
	for i, g := range s.Spec.SchedulingGates {
		at := at.Dot("schedulingGates").Index(i)
		at.Qualified(g.Name)
		if seen.Twice(g.Name) {
			at.Duplicate(g.Name)
		}
	}
}

// hostUsers forbids a pod with users of its own what it would share with its node.
func (s Subject) hostUsers(at check.At) {
	spec := s.Spec
	if meta.Deref(spec.HostUsers, true) {
		return
	}
	const detail = "when `hostUsers` is false"
	if spec.HostNetwork {
		at.Dot("hostNetwork").Forbidden(detail)
	}
	if spec.HostPID {
		at.Dot("HostPID").Forbidden(detail) // as upstream spells it
	}
	if spec.HostIPC {
		at.Dot("HostIPC").Forbidden(detail)
	}
	devices := func(at check.At, spec *corev1.PodSpec) {
		for at, c := range Containers(at, spec) {
			if len(c.VolumeDevices) > 0 {
				at.Dot("volumeDevices").Forbidden(detail)
			}
		}
	}
	if s.Was == nil || meta.Deref(s.Was.HostUsers, true) || !s.had(devices) {
		devices(at, spec)
	}
}

func hostname(at check.At, spec *corev1.PodSpec) {
	if spec.HostnameOverride == nil {
		return
	}
	at = at.Dot("hostnameOverride")
	if meta.Deref(spec.SetHostnameAsFQDN, false) {
		at.Forbidden("may not be specified when setHostnameAsFQDN is true")
	}
	if spec.HostNetwork {
		at.Forbidden("may not be specified when hostNetwork is true")
	}
	if len(*spec.HostnameOverride) > 64 {
		at.TooLong(64)
	}
	at.Subdomain(*spec.HostnameOverride)
}

// names checks what a spec refers to by name, and who is told of its pod.
func (s Subject) names(at check.At) {
	spec := s.Spec
	if spec.ServiceAccountName != "" {
		at.Dot("serviceAccountName").Wrong(spec.ServiceAccountName, validation.ValidateServiceAccountName(spec.ServiceAccountName, false))
	}
	if spec.NodeName != "" {
		meta.Name(at.Dot("nodeName"), spec.NodeName)
	}
	if d := spec.ActiveDeadlineSeconds; d != nil {
		check.Range(at.Dot("activeDeadlineSeconds"), *d, 1, math.MaxInt32)
	}
	if spec.Hostname != "" {
		at.Dot("hostname").Label(spec.Hostname)
	}
	if spec.Subdomain != "" {
		at.Dot("subdomain").Label(spec.Subdomain)
	}
	s.tolerations(at.Dot("tolerations"))
	for i, alias := range spec.HostAliases {
		at := at.Dot("hostAliases").Index(i)
		meta.IP(at.Dot("ip"), alias.IP)
		for j, name := range alias.Hostnames {
			at.Dot("hostnames").Index(j).Subdomain(name)
		}
	}
	if spec.PriorityClassName != "" {
		meta.Name(at.Dot("priorityClassName"), spec.PriorityClassName)
	}
	if spec.RuntimeClassName != nil {
		meta.Name(at.Dot("runtimeClassName"), *spec.RuntimeClassName)
	}
	if p := spec.PreemptionPolicy; p != nil {
		Preemption(at.Dot("preemptionPolicy"), *p)
	}
}

// Preemption demands to be told whether a pod may take the place of others.
func Preemption(at check.At, p corev1.PreemptionPolicy) {
	check.ListedChoice(at, p, corev1.PreemptLowerPriority, corev1.PreemptNever)
}

// system checks what the pod costs beside its containers, and for which
// operating system it is.
func (s Subject) system(at check.At) {
	c := context{Subject: s}
	if s.Spec.Overhead != nil {
		c.resources(at.Dot("overhead"), &corev1.ResourceRequirements{Limits: s.Spec.Overhead}, meta.ContainerResource)
	}
	os := s.Spec.OS
	switch {
	case os == nil:
	case os.Name == "":
		at.Dot("os.name").Required("")
	case !check.OneOf(at.Dot("os"), os.Name, corev1.Linux, corev1.Windows):
	case os.Name == corev1.Linux:
		onlyLinux(at, s.Spec)
	default:
		onlyWindows(at, s.Spec)
	}
}

// fileKeyVolumes demands that variables are read from volumes that containers can write.
func fileKeyVolumes(at check.At, spec *corev1.PodSpec) {
	volumes := map[string]*corev1.Volume{}
	for i := range spec.Volumes {
		volumes[spec.Volumes[i].Name] = &spec.Volumes[i]
	}
	for at, c := range Containers(at, spec) {
		for i, e := range c.Env {
			if e.ValueFrom == nil || e.ValueFrom.FileKeyRef == nil {
				continue
			}
			name := e.ValueFrom.FileKeyRef.VolumeName
			at := at.Dot("env").Index(i).Dot("valueFrom.fileKeyRef.volumeName")
			if v := volumes[name]; v == nil {
				at.NotFound(name)
			} else if v.EmptyDir == nil {
				at.Invalid(name, "referenced volume must be of type emptyDir")
			}
		}
	}
}

// tokenPaths are the paths of tokens that lie where they may no longer.
func tokenPaths(at check.At, spec *corev1.PodSpec) {
	for _, v := range spec.Volumes {
		if v.Projected == nil {
			continue
		}
		for _, s := range v.Projected.Sources {
			if s.ServiceAccountToken != nil {
				localPath(at, s.ServiceAccountToken.Path)
			}
		}
	}
}
