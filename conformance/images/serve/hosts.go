package serve

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// made marks the files that Mirror wrote, so that it never touches another's.
const made = "# written by conformance/images: pulls from the images made on this machine first\n"

// Hosts are the registries that the names of images begin with.
func Hosts(names []string) (hosts []string) {
	seen := map[string]bool{}
	for _, name := range names {
		host, _, _ := strings.Cut(name, "/")
		if !seen[host] {
			seen[host] = true
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// Mirror tells a containerd, whose directory of registries is certs, to pull
// what it wants of the hosts from the registry at address first. What that
// lacks it asks the host itself for.
func Mirror(certs, address string, hosts []string) error {
	for _, host := range hosts {
		file := filepath.Join(certs, host, "hosts.toml")
		old, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("mirror %s: %w", host, err)
		}
		if err == nil && !strings.HasPrefix(string(old), made) {
			return fmt.Errorf("mirror %s: %s is somebody else's", host, file)
		}
		text := fmt.Sprintf("%sserver = %q\n\n[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", made, "https://"+host, "http://"+address)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return fmt.Errorf("mirror %s: %w", host, err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return fmt.Errorf("mirror %s: %w", host, err)
		}
	}
	return nil
}
