package parts

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// TestProxyFlags: the stock proxy's flags mean what they mean there.
func TestProxyFlags(t *testing.T) {
	for _, c := range []struct {
		name, flags     string
		health, metrics string
		primary         bool
		open            string
		fails           string
	}{
		{name: "none", health: "0.0.0.0:10256", metrics: "127.0.0.1:10249"},
		{
			name: "addresses without ports", flags: "--healthz-bind-address=192.0.2.1 --metrics-bind-address=::",
			health: "192.0.2.1:10256", metrics: "[::]:10249",
		},
		{name: "ports", flags: "--healthz-bind-address=[::1]:1 --metrics-bind-address=0.0.0.0:2", health: "[::1]:1", metrics: "0.0.0.0:2"},
		{name: "neither", flags: "--healthz-bind-address= --metrics-bind-address="},
		{name: "primary", flags: "--healthz-bind-address= --metrics-bind-address= --nodeport-addresses=primary", primary: true},
		{
			name: "ranges", flags: "--healthz-bind-address= --metrics-bind-address= --nodeport-addresses=192.0.2.0/24,fd00::/8",
			open: "192.0.2.0/24 fd00::/8",
		},
		{name: "no range", flags: "--nodeport-addresses=here", fails: "--nodeport-addresses"},
		{name: "no address", flags: "--healthz-bind-address=here", fails: "--healthz-bind-address"},
		{name: "no cluster", flags: "--cluster-cidr=here", fails: "--cluster-cidr"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var o Proxy
			fs := pflag.NewFlagSet("", pflag.ContinueOnError)
			o.Flags(fs)
			Stock("proxy", fs)
			if err := fs.Parse(append(strings.Fields(c.flags), "--hostname-override= N1 ", "--proxy-mode=iptables")); err != nil {
				t.Fatal(err)
			}
			cfg, err := o.config()
			if c.fails != "" {
				if err == nil || !strings.Contains(err.Error(), c.fails) {
					t.Errorf("error %v, want one of %s", err, c.fails)
				}
				return
			}
			if err != nil || cfg.Node != "n1" || cfg.Health != c.health || cfg.Metrics != c.metrics || cfg.Primary != c.primary {
				t.Errorf("%v, %+v", err, cfg)
			}
			var open []netip.Prefix
			for p := range strings.FieldsSeq(c.open) {
				open = append(open, netip.MustParsePrefix(p))
			}
			if !slices.Equal(cfg.NodePorts, open) {
				t.Errorf("open at %v, want %v", cfg.NodePorts, open)
			}
		})
	}
}
