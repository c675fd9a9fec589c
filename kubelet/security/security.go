// Package security says as whom containers run and what they may do: users,
// groups, capabilities, namespaces, profiles, kernel parameters.
package security

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-dev/knarr/kubelet"
)

// A Policy is what is set for all pods.
type Policy struct {
	SeccompDir string // of the profiles that pods name
	// SeccompDefault has containers that name no profile run with the runtime's
	// rather than without one.
	SeccompDefault bool
}

// Hook is security's part in a pod's life. It must come after the one that
// sees to the image, whose user counts.
func (p Policy) Hook() kubelet.Hook {
	return kubelet.Hook{Name: "security", Prepare: p.sandbox, BeforeStart: p.container}
}

// sandbox sets what the sandbox itself runs as, and what its containers share.
func (p Policy) sandbox(_ context.Context, s *kubelet.Sandbox) error {
	spec, sc := s.Pod.Spec, deref(s.Pod.Spec.SecurityContext)
	if spec.HostUsers != nil && !*spec.HostUsers {
		return errors.New("pods with a user namespace of their own are not supported by this kubelet")
	}
	lc := &runtimeapi.LinuxSandboxSecurityContext{
		NamespaceOptions: namespaces(s.Pod),
		Privileged:       privileged(s.Pod),
		// As upstream: the sandbox's own process needs no more than this.
		Seccomp:            &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault},
		RunAsUser:          number(sc.RunAsUser),
		RunAsGroup:         number(sc.RunAsGroup),
		SupplementalGroups: groups(sc),
		SelinuxOptions:     selinux(sc.SELinuxOptions),
	}
	lc.SupplementalGroupsPolicy = groupsPolicy(sc)
	s.Config.Linux.SecurityContext = lc
	s.Config.Linux.Sysctls = map[string]string{}
	for _, c := range sc.Sysctls {
		s.Config.Linux.Sysctls[dotted(c.Name)] = c.Value
	}
	return nil
}

// dotted writes the name of a kernel parameter with dots between its parts,
// as runtimes know it; it may come with slashes.
func dotted(name string) string {
	if i := strings.IndexAny(name, "./"); i < 0 || name[i] == '.' {
		return name
	}
	return strings.NewReplacer("/", ".", ".", "/").Replace(name)
}

func namespaces(p *corev1.Pod) *runtimeapi.NamespaceOption {
	o := &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}
	if p.Spec.HostNetwork {
		o.Network = runtimeapi.NamespaceMode_NODE
	}
	if p.Spec.HostIPC {
		o.Ipc = runtimeapi.NamespaceMode_NODE
	}
	switch {
	case p.Spec.HostPID:
		o.Pid = runtimeapi.NamespaceMode_NODE
	case p.Spec.ShareProcessNamespace != nil && *p.Spec.ShareProcessNamespace:
		o.Pid = runtimeapi.NamespaceMode_POD
	}
	return o
}

// privileged tells whether a container of the pod is: its sandbox must be then.
func privileged(p *corev1.Pod) bool {
	return slices.ContainsFunc(slices.Concat(p.Spec.InitContainers, p.Spec.Containers), func(c corev1.Container) bool {
		return c.SecurityContext != nil && c.SecurityContext.Privileged != nil && *c.SecurityContext.Privileged
	})
}

func groups(sc corev1.PodSecurityContext) (list []int64) {
	if sc.FSGroup != nil {
		list = append(list, *sc.FSGroup)
	}
	return append(list, sc.SupplementalGroups...)
}

func groupsPolicy(sc corev1.PodSecurityContext) runtimeapi.SupplementalGroupsPolicy {
	if sc.SupplementalGroupsPolicy == nil {
		return runtimeapi.SupplementalGroupsPolicy_Merge
	}
	return runtimeapi.SupplementalGroupsPolicy(runtimeapi.SupplementalGroupsPolicy_value[string(*sc.SupplementalGroupsPolicy)])
}

// container sets what one container runs as. What it says itself counts before
// what the pod says.
func (p Policy) container(_ context.Context, c *kubelet.Container) error {
	pod, own := deref(c.Pod.Spec.SecurityContext), deref(c.Spec.SecurityContext)
	uid, name := imageUser(c.Image)
	user := cmp.Or(own.RunAsUser, pod.RunAsUser)
	if nonRoot := cmp.Or(own.RunAsNonRoot, pod.RunAsNonRoot); nonRoot != nil && *nonRoot {
		if err := verify(c, user, uid, name); err != nil {
			return err
		}
	}
	seccomp, err := p.seccomp(cmp.Or(own.SeccompProfile, pod.SeccompProfile))
	if err != nil {
		return err
	}
	sc := &runtimeapi.LinuxContainerSecurityContext{
		RunAsUser: number(user), RunAsGroup: number(cmp.Or(own.RunAsGroup, pod.RunAsGroup)),
		SupplementalGroups: groups(pod), SupplementalGroupsPolicy: groupsPolicy(pod),
		NamespaceOptions: namespaces(c.Pod),
		SelinuxOptions:   selinux(cmp.Or(own.SELinuxOptions, pod.SELinuxOptions)),
		Privileged:       own.Privileged != nil && *own.Privileged,
		ReadonlyRootfs:   own.ReadOnlyRootFilesystem != nil && *own.ReadOnlyRootFilesystem,
		NoNewPrivs:       own.AllowPrivilegeEscalation != nil && !*own.AllowPrivilegeEscalation,
		Seccomp:          seccomp,
	}
	if user == nil {
		sc.RunAsUser, sc.RunAsUsername = number(uid), name
	}
	if c.TargetID != "" && sc.NamespaceOptions.Pid == runtimeapi.NamespaceMode_CONTAINER {
		sc.NamespaceOptions.Pid, sc.NamespaceOptions.TargetId = runtimeapi.NamespaceMode_TARGET, c.TargetID
	} else if c.Target != "" && c.TargetID == "" {
		return fmt.Errorf("unable to find target container %v", c.Target)
	}
	if caps := own.Capabilities; caps != nil {
		sc.Capabilities = &runtimeapi.Capability{AddCapabilities: texts(caps.Add), DropCapabilities: texts(caps.Drop)}
	}
	if own.ProcMount == nil || *own.ProcMount != corev1.UnmaskedProcMount {
		sc.MaskedPaths, sc.ReadonlyPaths = masked(), readonly
	}
	if err := apparmor(sc, c, cmp.Or(own.AppArmorProfile, pod.AppArmorProfile)); err != nil {
		return err
	}
	c.Config.Linux.SecurityContext = sc
	return nil
}

// imageUser is whom the image says to run as: a number, or a name; root where
// it says nothing.
func imageUser(im *runtimeapi.Image) (uid *int64, name string) {
	switch {
	case im.GetUid() != nil:
		return &im.Uid.Value, ""
	case im.GetUsername() != "":
		return nil, im.Username
	}
	return new(int64(0)), ""
}

// verify tells whether a container that must not run as root does not. A name
// could be anybody's.
func verify(c *kubelet.Container, user, image *int64, name string) error {
	where := fmt.Sprintf("(pod: %q, container: %s)", fmt.Sprintf("%s_%s(%s)", c.Pod.Name, c.Pod.Namespace, c.Pod.UID), c.Spec.Name)
	switch {
	case user != nil && *user == 0:
		return fmt.Errorf("container's runAsUser breaks non-root policy %s", where)
	case user != nil:
		return nil
	case image == nil:
		return fmt.Errorf("container has runAsNonRoot and image has non-numeric user (%s), cannot verify user is non-root %s", name, where)
	case *image == 0:
		return fmt.Errorf("container has runAsNonRoot and image will run as root %s", where)
	}
	return nil
}

func (p Policy) seccomp(profile *corev1.SeccompProfile) (*runtimeapi.SecurityProfile, error) {
	kind := corev1.SeccompProfileTypeUnconfined
	if profile != nil {
		kind = profile.Type
	} else if p.SeccompDefault {
		kind = corev1.SeccompProfileTypeRuntimeDefault
	}
	switch kind {
	case corev1.SeccompProfileTypeRuntimeDefault:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}, nil
	case corev1.SeccompProfileTypeLocalhost:
		if profile.LocalhostProfile == nil || *profile.LocalhostProfile == "" {
			return nil, errors.New("localhostProfile must be set if seccompProfile type is Localhost")
		}
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: filepath.Join(p.SeccompDir, *profile.LocalhostProfile)}, nil
	case corev1.SeccompProfileTypeUnconfined:
	}
	return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}, nil
}

// apparmorNote is the annotation that named a container's profile before there
// was a field; what follows its slash is the container.
const apparmorNote = "container.apparmor.security.beta.kubernetes.io/"

// apparmor sets the profile, for newer runtimes and in the old form.
func apparmor(sc *runtimeapi.LinuxContainerSecurityContext, c *kubelet.Container, profile *corev1.AppArmorProfile) error {
	old := c.Pod.Annotations[apparmorNote+c.Spec.Name]
	switch {
	case profile != nil && profile.Type == corev1.AppArmorProfileTypeLocalhost:
		if profile.LocalhostProfile == nil {
			return errors.New("missing localhost apparmor profile name")
		}
		old = "localhost/" + *profile.LocalhostProfile
	case profile != nil && profile.Type == corev1.AppArmorProfileTypeUnconfined:
		old = "unconfined"
	case profile != nil:
		old = "runtime/default"
	}
	sc.ApparmorProfile = old //nolint:staticcheck // older runtimes read only this
	switch name, local := strings.CutPrefix(old, "localhost/"); {
	case local:
		sc.Apparmor = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: name}
	case old == "unconfined":
		sc.Apparmor = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}
	case old != "":
		sc.Apparmor = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
	}
	return nil
}

// readonly and masked are what containers must not write, or not see, of the
// kernel's own files: what container engines agree on.
var readonly = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}

var masked = sync.OnceValue(func() []string {
	list := []string{
		"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
		"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
	}
	// Each of these tells what else the processor is doing.
	heat, _ := filepath.Glob("/sys/devices/system/cpu/cpu[0-9]*/thermal_throttle") // the pattern is sound
	return append(list, slices.DeleteFunc(heat, func(f string) bool { _, err := os.Stat(f); return err != nil })...)
})

func selinux(o *corev1.SELinuxOptions) *runtimeapi.SELinuxOption {
	if o == nil {
		return nil
	}
	return &runtimeapi.SELinuxOption{User: o.User, Role: o.Role, Type: o.Type, Level: o.Level}
}

func number(n *int64) *runtimeapi.Int64Value {
	if n == nil {
		return nil
	}
	return &runtimeapi.Int64Value{Value: *n}
}

func texts[T ~string](list []T) []string {
	out := make([]string, 0, len(list))
	for _, s := range list {
		out = append(out, string(s))
	}
	return out
}

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
