package meta

import (
	"fmt"
	"strings"
	"sync"

	"github.com/distribution/reference"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"github.com/knarr-dev/knarr/apis/check"
)

// Name demands the name of an object whose kind has no rule of its own.
func Name(at check.At, name string) { at.Wrong(name, validation.NameIsDNSSubdomain(name, false)) }

// Namespace demands the name of a namespace.
func Namespace(at check.At, name string) {
	at.Wrong(name, validation.ValidateNamespaceName(name, false))
}

// IP demands an address in its one proper form. One that an object had
// before, in whatever form, it may keep.
func IP(at check.At, ip string, had ...string) {
	at.Add(utilvalidation.IsValidIPForLegacyField(at.Path(), ip, true, had)...)
}

// CIDR demands a range of addresses in its one proper form. One that an
// object had before, in whatever form, it may keep.
func CIDR(at check.At, cidr string, had ...string) {
	at.Add(utilvalidation.IsValidCIDRForLegacyField(at.Path(), cidr, true, had)...)
}

// EndpointIP demands an address that traffic may be sent to.
func EndpointIP(at check.At, s string) {
	switch ip := netutils.ParseIPSloppy(s); {
	case ip == nil:
		at.Invalid(s, "must be a valid IP address")
	case ip.IsUnspecified():
		at.Invalid(s, "may not be unspecified ("+s+")")
	case ip.IsLoopback():
		at.Invalid(s, "may not be in the loopback range (127.0.0.0/8, ::1/128)")
	case ip.IsLinkLocalUnicast():
		at.Invalid(s, "may not be in the link-local range (169.254.0.0/16, fe80::/10)")
	case ip.IsLinkLocalMulticast():
		at.Invalid(s, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")
	}
}

// DualStack demands of several addresses that they are of different families.
// value is how messages show them.
func DualStack(at check.At, value any, ips []string) {
	if len(ips) < 2 {
		return
	}
	both, err := netutils.IsDualStackIPStrings(ips)
	if err != nil {
		at.Add(field.InternalError(at.Path(), fmt.Errorf("failed to check for dual stack with error:%w", err)))
	}
	if !both || len(ips) > 2 {
		at.Invalid(value, "may specify no more than one IP for each IP family")
	}
}

// Finalizer demands one of the system's own finalizers where a name has no
// domain. registry asks it of all built-in kinds.
func Finalizer(path *field.Path, name string) field.ErrorList {
	if strings.Contains(name, "/") || name == "kubernetes" || name == "orphan" || name == "foregroundDeletion" {
		return nil
	}
	return field.ErrorList{field.Invalid(path, name, "name is neither a standard finalizer name nor is it fully qualified")}
}

// Latest reports whether what an image's name stands for may change: where it
// has the tag latest, or neither tag nor digest.
func Latest(image string) bool {
	if len(image) > reference.RepositoryNameTotalLengthMax {
		return latest(image)
	}
	answers.Lock()
	defer answers.Unlock()
	known, ok := answers.of[image]
	if !ok {
		if len(answers.of) == maxAnswers {
			clear(answers.of)
		}
		known = latest(image)
		answers.of[image] = known
	}
	return known
}

// answers are what Latest said of images of late, which mostly come again: to
// read a name takes much longer.
var answers = struct {
	sync.Mutex
	of map[string]bool
}{of: map[string]bool{}}

const maxAnswers = 1000

func latest(image string) bool {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return false
	}
	if tagged, ok := named.(reference.Tagged); ok {
		return tagged.Tag() == "latest"
	}
	return reference.IsNameOnly(named)
}

// Protocol demands a protocol that ports may have.
func Protocol(at check.At, p corev1.Protocol) {
	check.Choice(at, p, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP)
}

// Port demands a port's number or name.
func Port(at check.At, p intstr.IntOrString) {
	if p.Type == intstr.Int {
		at.Wrong(p.IntValue(), utilvalidation.IsValidPortNum(p.IntValue()))
	} else {
		at.Wrong(p.StrVal, utilvalidation.IsValidPortName(p.StrVal))
	}
}

// Annotations demands annotations of a size that can be stored.
func Annotations(at check.At, annotations map[string]string) {
	at.Add(validation.ValidateAnnotations(annotations, at.Path())...)
}

// AnyFinalizer demands a finalizer as Finalizer does, and that it is a name.
func AnyFinalizer(at check.At, name string) {
	at.Add(validation.ValidateFinalizerName(name, at.Path())...)
	at.Add(Finalizer(at.Path(), name)...)
}

// DualStackCIDRs demands of several ranges that they are of different families.
func DualStackCIDRs(at check.At, cidrs []string) {
	if len(cidrs) < 2 {
		return
	}
	both, err := netutils.IsDualStackCIDRStrings(cidrs)
	if err != nil {
		at.Add(field.InternalError(at.Path(), fmt.Errorf("invalid PodCIDRs. failed to check with dual stack with error:%w", err)))
	}
	if !both || len(cidrs) > 2 {
		at.Invalid(cidrs, "may specify no more than one CIDR for each IP family")
	}
}
