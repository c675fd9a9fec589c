package podspec

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"

	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
)

// runs checks what is done to a container while it runs.
func (c context) runs(at check.At, ctr *corev1.Container) {
	if l := ctr.Lifecycle; l != nil {
		at := at.Dot("lifecycle")
		if l.PostStart != nil {
			c.lifecycleHandler(at.Dot("postStart"), l.PostStart)
		}
		if l.PreStop != nil {
			c.lifecycleHandler(at.Dot("preStop"), l.PreStop)
		}
		if l.StopSignal != nil {
			stopSignal(at.Dot("stopSignal"), *l.StopSignal, c.Spec.OS)
		}
	}
	if p := ctr.LivenessProbe; p != nil {
		at := at.Dot("livenessProbe")
		probe(at, p)
		onlyOnce(at, p)
	}
	if p := ctr.ReadinessProbe; p != nil {
		at := at.Dot("readinessProbe")
		probe(at, p)
		if p.TerminationGracePeriodSeconds != nil {
			at.Dot("terminationGracePeriodSeconds").Invalid(p.TerminationGracePeriodSeconds, "must not be set for readinessProbes")
		}
	}
	if p := ctr.StartupProbe; p != nil {
		at := at.Dot("startupProbe")
		probe(at, p)
		onlyOnce(at, p)
	}
}

func onlyOnce(at check.At, p *corev1.Probe) {
	if p.SuccessThreshold != 1 {
		at.Dot("successThreshold").Invalid(p.SuccessThreshold, "must be 1")
	}
}

func probe(at check.At, p *corev1.Probe) {
	handlers{exec: p.Exec, http: p.HTTPGet, tcp: p.TCPSocket, grpc: p.GRPC}.check(at)
	check.NonNegative(at.Dot("initialDelaySeconds"), p.InitialDelaySeconds)
	check.NonNegative(at.Dot("timeoutSeconds"), p.TimeoutSeconds)
	check.NonNegative(at.Dot("periodSeconds"), p.PeriodSeconds)
	check.NonNegative(at.Dot("successThreshold"), p.SuccessThreshold)
	check.NonNegative(at.Dot("failureThreshold"), p.FailureThreshold)
	if g := p.TerminationGracePeriodSeconds; g != nil && *g <= 0 {
		at.Dot("terminationGracePeriodSeconds").Invalid(*g, "must be greater than 0")
	}
}

func (c context) lifecycleHandler(at check.At, h *corev1.LifecycleHandler) {
	handlers{exec: h.Exec, http: h.HTTPGet, tcp: h.TCPSocket, sleep: h.Sleep, grace: c.Spec.TerminationGracePeriodSeconds}.check(at)
}

// handlers are the ways to do something to a container, of which there is one.
type handlers struct {
	exec  *corev1.ExecAction
	http  *corev1.HTTPGetAction
	tcp   *corev1.TCPSocketAction
	grpc  *corev1.GRPCAction
	sleep *corev1.SleepAction
	grace *int64 // how long the pod has to end
}

func (h handlers) check(at check.At) {
	found := false
	first := func(name string, set bool) bool {
		if set && found {
			at.Dot(name).Forbidden("may not specify more than 1 handler type")
			return false
		}
		found = found || set
		return set
	}
	if first("exec", h.exec != nil) && len(h.exec.Command) == 0 {
		at.Dot("exec.command").Required("")
	}
	if first("httpGet", h.http != nil) {
		httpGet(at.Dot("httpGet"), h.http)
	}
	if first("tcpSocket", h.tcp != nil) {
		meta.Port(at.Dot("tcpSocket.port"), h.tcp.Port)
	}
	if first("grpc", h.grpc != nil) {
		at.Dot("grpc.port").Wrong(int(h.grpc.Port), utilvalidation.IsValidPortNum(int(h.grpc.Port)))
	}
	if first("sleep", h.sleep != nil) && h.grace != nil && (h.sleep.Seconds < 0 || h.sleep.Seconds > *h.grace) {
		at.Dot("sleep").Invalid(h.sleep.Seconds,
			fmt.Sprintf("must be non-negative and less than terminationGracePeriodSeconds (%d)", *h.grace))
	}
	if !found {
		at.Required("must specify a handler type")
	}
}

func httpGet(at check.At, h *corev1.HTTPGetAction) {
	at.Dot("path").Present(h.Path)
	meta.Port(at.Dot("port"), h.Port)
	check.OneOf(at.Dot("scheme"), h.Scheme, corev1.URISchemeHTTP, corev1.URISchemeHTTPS)
	for _, header := range h.HTTPHeaders {
		at.Dot("httpHeaders").Wrong(header.Name, utilvalidation.IsHTTPHeaderName(header.Name))
	}
}

// stopSignal is only met in pods stored by a server with that feature: here
// the field is dropped.
func stopSignal(at check.At, s corev1.Signal, os *corev1.PodOS) {
	if os == nil {
		at.Forbidden("may not be set for containers with empty `spec.os.name`")
	} else if !strings.HasPrefix(string(s), "SIG") {
		at.Invalid(s, "must be the name of a signal")
	}
}
