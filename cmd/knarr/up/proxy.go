package up

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"

	"github.com/knarr-dev/knarr/cmd/knarr/parts"
	"github.com/knarr-dev/knarr/proxy/datapath"
)

// proxy is how the service proxy runs here, and what it has made is known by.
func (d *dir) proxy(o *Options) *parts.Proxy {
	p := defaults(&parts.Proxy{})
	p.NodeName, p.PodRange = o.Node, o.PodRange
	p.Conf, p.Dir = d.cniConf(), d.file("cni")
	p.Bridge = strings.Replace(d.id(), "knarr", "knarr0", 1)
	p.Pins = filepath.Join(filepath.Dir(datapath.DefaultDir), d.id())
	p.Healthz, p.Metrics = at("0.0.0.0", o.ProxyHealthPort), at("127.0.0.1", o.ProxyMetrics)
	return p
}

// at is an address with a port, none for no port.
func at(host string, port int) string {
	if port == 0 {
		return ""
	}
	return net.JoinHostPort(host, fmt.Sprint(port))
}
