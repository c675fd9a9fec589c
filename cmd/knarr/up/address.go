package up

import (
	"fmt"
	"net/netip"
	"strings"
)

// nth is an address of the first of some ranges.
func nth(ranges string, n int) (string, error) {
	first, _, _ := strings.Cut(ranges, ",")
	r, err := netip.ParsePrefix(strings.TrimSpace(first))
	if err != nil {
		return "", err
	}
	a := r.Masked().Addr()
	for range n {
		a = a.Next()
	}
	if !r.Contains(a) {
		return "", fmt.Errorf("%s has no address number %d", r, n)
	}
	return a.String(), nil
}

// firstAddress is that of the API server's own service.
func firstAddress(serviceRange string) (string, error) { return nth(serviceRange, 1) }

// dnsAddress is that of the cluster's DNS.
func dnsAddress(serviceRange string) (string, error) { return nth(serviceRange, 10) }

// splitList takes a list apart that is separated by commas.
func splitList(text string) (list []string) {
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part != "" {
			list = append(list, part)
		}
	}
	return list
}
