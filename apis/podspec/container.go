package podspec

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"

	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
	"github.com/knarr-dev/knarr/apis/volume"
)

// A context is a subject whose volumes and claims are known, so that its
// containers can be checked.
type context struct {
	Subject

	volumes map[string]corev1.VolumeSource
	claims  map[string]bool
}

func (c context) containers(at check.At) {
	all := c.Spec.Containers
	if len(all) == 0 {
		at.Required("")
		return
	}
	names := check.Set[string]{}
	for i := range all {
		at, ctr := at.Index(i), &all[i]
		c.container(at, ctr)
		if names.Twice(ctr.Name) {
			at.Dot("name").Duplicate(ctr.Name)
		}
		c.runs(at, ctr)
		c.restarts(at, ctr)
	}
	hostPorts(at, all)
}

func (c context) initContainers(at check.At) {
	names := check.Set[string]{}
	for _, ctr := range c.Spec.Containers {
		names[ctr.Name] = true
	}
	for i := range c.Spec.InitContainers {
		here, ctr := at.Index(i), &c.Spec.InitContainers[i]
		c.container(here, ctr)
		c.restarts(here, ctr)
		if names[ctr.Name] {
			here.Dot("name").Duplicate(ctr.Name)
		} else if ctr.Name != "" {
			names[ctr.Name] = true
		}
		hostPorts(at, c.Spec.InitContainers[i:i+1]) // as upstream: the place told is that of the first
		if Sidecar(ctr) {
			c.runs(here, ctr)
			continue
		}
		const detail = "may not be set for init containers without restartPolicy=Always"
		check.Unset(here, &struct {
			Lifecycle                                   *corev1.Lifecycle
			LivenessProbe, ReadinessProbe, StartupProbe *corev1.Probe
		}{ctr.Lifecycle, ctr.LivenessProbe, ctr.ReadinessProbe, ctr.StartupProbe}, detail)
		if !c.had(restartsToResize) {
			restartsOnResize(here, ctr)
		}
	}
}

func restartsToResize(at check.At, spec *corev1.PodSpec) {
	for i := range spec.InitContainers {
		if ctr := &spec.InitContainers[i]; !Sidecar(ctr) {
			restartsOnResize(at, ctr)
		}
	}
}

func restartsOnResize(at check.At, ctr *corev1.Container) {
	for i, p := range ctr.ResizePolicy {
		if p.RestartPolicy == corev1.RestartContainer {
			at.Dot("resizePolicy").Index(i).Dot("restartPolicy").
				Invalid(p.RestartPolicy, "must not be set to 'RestartContainer' for non-sidecar initContainers")
		}
	}
}

func (c context) ephemeralContainers(at check.At) {
	others, names := map[string]bool{}, check.Set[string]{}
	for _, all := range [][]corev1.Container{c.Spec.Containers, c.Spec.InitContainers} {
		for _, ctr := range all {
			others[ctr.Name], names[ctr.Name] = true, true
		}
	}
	for i := range c.Spec.EphemeralContainers {
		at, e := at.Index(i), &c.Spec.EphemeralContainers[i]
		c.container(at, (*corev1.Container)(&e.EphemeralContainerCommon))
		trimmed(at.Dot("image"), e.Image)
		if names.Twice(e.Name) {
			at.Dot("name").Duplicate(e.Name)
		}
		if e.TargetContainerName != "" && !others[e.TargetContainerName] {
			at.Dot("targetContainerName").NotFound(e.TargetContainerName)
		}
		const detail = "cannot be set for an Ephemeral Container"
		check.Unset(at, &e.EphemeralContainerCommon, detail,
			"Name", "Image", "Command", "Args", "WorkingDir", "EnvFrom", "Env", "VolumeMounts", "VolumeDevices",
			"TerminationMessagePath", "TerminationMessagePolicy", "ImagePullPolicy", "SecurityContext", "Stdin", "StdinOnce", "TTY")
		for j, m := range e.VolumeMounts {
			at := at.Dot("volumeMounts").Index(j)
			if m.SubPath != "" {
				at.Dot("subPath").Forbidden(detail)
			}
			if m.SubPathExpr != "" {
				at.Dot("subPathExpr").Forbidden(detail)
			}
		}
	}
}

// Images demands that the names of a pod's images are not padded; those in
// templates may be.
func Images(at check.At, spec *corev1.PodSpec) {
	for i, ctr := range spec.Containers {
		trimmed(at.Dot("containers").Index(i).Dot("image"), ctr.Image)
	}
	for i, ctr := range spec.InitContainers {
		trimmed(at.Dot("initContainers").Index(i).Dot("image"), ctr.Image)
	}
}

func trimmed(at check.At, image string) {
	if strings.TrimSpace(image) != image {
		at.Invalid(image, "must not have leading or trailing whitespace")
	}
}

// container checks what containers of all sorts have.
func (c context) container(at check.At, ctr *corev1.Container) {
	if at.Dot("name").Present(ctr.Name) {
		at.Dot("name").Label(ctr.Name)
	}
	at.Dot("image").Present(ctr.Image)
	messages := []corev1.TerminationMessagePolicy{corev1.TerminationMessageReadFile, corev1.TerminationMessageFallbackToLogsOnError}
	check.ListedChoice(at.Dot("terminationMessagePolicy"), ctr.TerminationMessagePolicy, messages...)
	ports(at.Dot("ports"), ctr.Ports)
	env(at.Dot("env"), ctr.Env)
	envFrom(at.Dot("envFrom"), ctr.EnvFrom)
	c.mounts(at.Dot("volumeMounts"), ctr)
	c.devices(at.Dot("volumeDevices"), ctr)
	volume.PullPolicy(at.Dot("imagePullPolicy"), ctr.ImagePullPolicy)
	c.resources(at.Dot("resources"), &ctr.Resources, meta.ContainerResource)
	c.resizePolicy(at.Dot("resizePolicy"), ctr.ResizePolicy)
	c.containerSecurity(at.Dot("securityContext"), ctr.SecurityContext)
}

func ports(at check.At, all []corev1.ContainerPort) {
	names := check.Set[string]{}
	for i, p := range all {
		at := at.Index(i)
		if p.Name != "" {
			wrong := utilvalidation.IsValidPortName(p.Name)
			at.Dot("name").Wrong(p.Name, wrong)
			if len(wrong) == 0 && names.Twice(p.Name) {
				at.Dot("name").Duplicate(p.Name)
			}
		}
		if p.ContainerPort == 0 {
			at.Dot("containerPort").Required("")
		} else {
			at.Dot("containerPort").Wrong(p.ContainerPort, utilvalidation.IsValidPortNum(int(p.ContainerPort)))
		}
		if p.HostPort != 0 {
			at.Dot("hostPort").Wrong(p.HostPort, utilvalidation.IsValidPortNum(int(p.HostPort)))
		}
		meta.Protocol(at.Dot("protocol"), p.Protocol)
	}
}

// hostPorts demands that containers take each port of the node once.
func hostPorts(at check.At, containers []corev1.Container) {
	taken := check.Set[string]{}
	for i, ctr := range containers {
		for j, p := range ctr.Ports {
			if s := fmt.Sprintf("%s/%s/%d", p.Protocol, p.HostIP, p.HostPort); p.HostPort != 0 && taken.Twice(s) {
				at.Index(i).Dot("ports").Index(j).Dot("hostPort").Duplicate(s)
			}
		}
	}
}

// resizePolicy tells what is wrong with any of them at the list, as upstream does.
func (c context) resizePolicy(at check.At, all []corev1.ContainerResizePolicy) {
	seen := check.Set[corev1.ResourceName]{}
	for i, p := range all {
		if seen.Twice(p.ResourceName) {
			at.Index(i).Duplicate(p.ResourceName)
		}
		check.Choice(at, p.ResourceName, corev1.ResourceCPU, corev1.ResourceMemory)
		check.Choice(at, p.RestartPolicy, corev1.NotRequired, corev1.RestartContainer)
		if c.Spec.RestartPolicy == corev1.RestartPolicyNever && p.RestartPolicy != corev1.NotRequired {
			at.Invalid(p.RestartPolicy, "must be 'NotRequired' when pod `restartPolicy` is 'Never'")
		}
	}
}

// restarts checks when a container is started again, where that is not as
// with all of the pod.
func (c context) restarts(at check.At, ctr *corev1.Container) {
	const rules, values = 20, 255
	if ctr.RestartPolicy == nil && len(ctr.RestartPolicyRules) > 0 {
		at.Dot("restartPolicy").Required("must specify restartPolicy when restart rules are used")
	}
	if ctr.RestartPolicy == nil && len(ctr.RestartPolicyRules) > 0 && !c.isMain(ctr) {
		return
	}
	if ctr.RestartPolicy != nil {
		check.OneOf(at.Dot("restartPolicy"), *ctr.RestartPolicy,
			corev1.ContainerRestartPolicyAlways, corev1.ContainerRestartPolicyNever, corev1.ContainerRestartPolicyOnFailure)
	}
	at = at.Dot("restartPolicyRules")
	if n := len(ctr.RestartPolicyRules); n > rules {
		at.TooMany(n, rules)
	}
	for i, r := range ctr.RestartPolicyRules {
		at := at.Index(i)
		check.OneOf(at.Dot("action"), r.Action, corev1.ContainerRestartRuleActionRestart, corev1.ContainerRestartRuleActionRestartAllContainers)
		if r.ExitCodes == nil {
			at.Dot("exitCodes").Required("must be specified")
			continue
		}
		check.OneOf(at.Dot("exitCodes.operator"), r.ExitCodes.Operator,
			corev1.ContainerRestartRuleOnExitCodesOpIn, corev1.ContainerRestartRuleOnExitCodesOpNotIn)
		if n := len(r.ExitCodes.Values); n > values {
			at.Dot("exitCodes.values").TooMany(n, values)
		}
	}
}

func (c context) isMain(ctr *corev1.Container) bool {
	for i := range c.Spec.Containers {
		if &c.Spec.Containers[i] == ctr {
			return true
		}
	}
	return false
}
