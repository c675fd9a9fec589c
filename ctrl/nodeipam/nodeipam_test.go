package nodeipam_test

import (
	"net/netip"
	"testing"

	"github.com/knarr-dev/knarr/ctrl/ctrltest"
	"github.com/knarr-dev/knarr/ctrl/nodeipam"
)

func TestExamples(t *testing.T) {
	c := nodeipam.New([]nodeipam.Range{
		{Prefix: netip.MustParsePrefix("10.244.0.0/22"), Bits: 24},
		{Prefix: netip.MustParsePrefix("fd00:1::/56"), Bits: 64},
	}, []netip.Prefix{netip.MustParsePrefix("10.244.1.0/25")})
	ctrltest.Run(t, c, "testdata/*.txtar")
}

// TestEnds cuts ranges that end where their family does.
func TestEnds(t *testing.T) {
	for _, r := range []string{"255.255.255.0/24", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff00/120"} {
		p := netip.MustParsePrefix(r)
		c := nodeipam.New([]nodeipam.Range{{Prefix: p, Bits: p.Bits() + 1}}, nil)
		ctrltest.Run(t, c, "testdata/ends/"+p.Addr().Unmap().StringExpanded()[:3]+".txtar")
	}
}
