package network

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
)

// confName comes before those that other networks have, for the runtime takes
// the first.
const confName = "10-knarr.conflist"

// The plugins' configuration, in their own words.
type (
	conflist struct {
		Version string   `json:"cniVersion"`
		Name    string   `json:"name"`
		Plugins []plugin `json:"plugins"`
	}
	plugin struct {
		Type         string `json:"type"`
		Bridge       string `json:"bridge"`
		IsGateway    bool   `json:"isGateway"`
		ForceAddress bool   `json:"forceAddress"`
		HairpinMode  bool   `json:"hairpinMode"`
		IPMasq       bool   `json:"ipMasq"`
		MTU          int    `json:"mtu,omitempty"`
		IPAM         ipam   `json:"ipam"`
	}
	ipam struct {
		Type   string    `json:"type"`
		Dir    string    `json:"dataDir,omitempty"`
		Ranges [][]pool  `json:"ranges"`
		Routes []gateway `json:"routes"`
	}
	pool struct {
		Subnet netip.Prefix `json:"subnet"`
	}
	gateway struct {
		To netip.Prefix `json:"dst"`
	}
)

// conf is the configuration that gives pods addresses of the ranges. What
// leaves the cluster is masqueraded by rules of ours, which need no iptables,
// and host ports are eBPF's business.
func conf(cfg Config, ranges []netip.Prefix, mtu int) ([]byte, error) {
	p := plugin{
		Type: "bridge", Bridge: cfg.Bridge, IsGateway: true, ForceAddress: true, HairpinMode: true, MTU: mtu,
		IPAM: ipam{Type: "host-local", Dir: cfg.IPAM},
	}
	for _, r := range ranges {
		p.IPAM.Ranges = append(p.IPAM.Ranges, []pool{{r}})
		any := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if r.Addr().Is6() {
			any = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		p.IPAM.Routes = append(p.IPAM.Routes, gateway{any})
	}
	text, err := json.MarshalIndent(conflist{Version: "1.0.0", Name: "knarr", Plugins: []plugin{p}}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode network configuration: %w", err)
	}
	return append(text, '\n'), nil
}

func (n *Network) confPath() string { return filepath.Join(n.cfg.Conf, confName) }

// writeConf writes the configuration where it is not there like that. The
// runtime, which watches the directory, never sees half of it.
func (n *Network) writeConf(ranges []netip.Prefix, mtu int) error {
	text, err := conf(n.cfg, ranges, mtu)
	if err != nil {
		return err
	}
	path := n.confPath()
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, text) {
		return nil
	}
	if err := os.MkdirAll(n.cfg.Conf, 0o755); err != nil {
		return fmt.Errorf("make directory of network configuration: %w", err)
	}
	f, err := os.CreateTemp(n.cfg.Conf, ".knarr-")
	if err != nil {
		return fmt.Errorf("write network configuration: %w", err)
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write network configuration: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}
