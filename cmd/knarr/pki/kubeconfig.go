package pki

import (
	"fmt"
	"os"

	"k8s.io/client-go/tools/clientcmd"
	api "k8s.io/client-go/tools/clientcmd/api"
)

// Kubeconfig writes a kubeconfig to path by which the certificate called
// name speaks to the server at url, which the authority ca has signed for.
// All that it needs is in the one file.
func (d *Dir) Kubeconfig(path, url, ca, name string) error {
	var data [3][]byte
	for i, file := range []string{d.Cert(ca), d.Cert(name), d.Key(name)} {
		var err error
		if data[i], err = os.ReadFile(file); err != nil {
			return fmt.Errorf("write kubeconfig: %w", err)
		}
	}
	const cluster = "knarr"
	cfg := api.NewConfig()
	cfg.Clusters[cluster] = &api.Cluster{Server: url, CertificateAuthorityData: data[0]}
	cfg.AuthInfos[name] = &api.AuthInfo{ClientCertificateData: data[1], ClientKeyData: data[2]}
	cfg.Contexts[cluster] = &api.Context{Cluster: cluster, AuthInfo: name}
	cfg.CurrentContext = cluster
	text, err := clientcmd.Write(*cfg)
	if err != nil {
		return fmt.Errorf("write kubeconfig: %w", err)
	}
	if have, err := os.ReadFile(path); err == nil && string(have) == string(text) {
		return nil
	}
	return d.write(path, text)
}
