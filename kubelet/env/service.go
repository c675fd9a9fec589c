package env

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// services are the variables that tell a pod where services are: those of its
// namespace, if it wants them, and the API server's in any case.
func (m *Maker) services(p *corev1.Pod) (map[string]string, error) {
	vars := map[string]string{}
	if m.Services == nil {
		return vars, nil
	}
	master, err := m.Services(metav1.NamespaceDefault)
	if err != nil {
		return nil, err
	}
	for _, s := range master {
		if s.Name == "kubernetes" {
			point(vars, s)
		}
	}
	if p.Spec.EnableServiceLinks != nil && !*p.Spec.EnableServiceLinks {
		return vars, nil
	}
	list, err := m.Services(p.Namespace)
	if err != nil {
		return nil, err
	}
	for _, s := range list {
		point(vars, s)
	}
	return vars, nil
}

// point adds the variables for one service. Those with _PORT_ are what links
// between containers once looked like.
func point(vars map[string]string, s *corev1.Service) {
	ip := s.Spec.ClusterIP
	if ip == "" || ip == corev1.ClusterIPNone || len(s.Spec.Ports) == 0 {
		return
	}
	prefix := variable(s.Name)
	vars[prefix+"_SERVICE_HOST"] = ip
	for i, port := range s.Spec.Ports {
		number, protocol := strconv.Itoa(int(port.Port)), strings.ToLower(string(port.Protocol))
		if protocol == "" {
			protocol = "tcp"
		}
		url := fmt.Sprintf("%s://%s", protocol, net.JoinHostPort(ip, number))
		if i == 0 {
			vars[prefix+"_SERVICE_PORT"] = number
			vars[prefix+"_PORT"] = url
		}
		if port.Name != "" {
			vars[prefix+"_SERVICE_PORT_"+variable(port.Name)] = number
		}
		link := prefix + "_PORT_" + number + "_" + strings.ToUpper(protocol)
		vars[link] = url
		vars[link+"_PROTO"] = protocol
		vars[link+"_PORT"] = number
		vars[link+"_ADDR"] = ip
	}
}

func variable(name string) string { return strings.ToUpper(strings.ReplaceAll(name, "-", "_")) }
