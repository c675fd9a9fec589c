package pki

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// A Cluster says for whom the certificates of a cluster are to be.
type Cluster struct {
	Hosts   []string // names and addresses by which the API server is reached, besides those that all have
	Node    string   // the name of a node; no certificates for one where empty
	NodeIPs []string
	Parts   bool   // kubeconfigs for the parts as processes of their own, too
	Server  string // URL of the API server for kubeconfigs
	AdminAt string // where the administrator's kubeconfig goes
}

// Names of the files of a cluster.
const (
	CA            = "ca"
	ProxyCA       = "front-proxy-ca"
	APIServer     = "apiserver"
	KubeletClient = "apiserver-kubelet-client"
	ProxyClient   = "front-proxy-client"
	Admin         = "admin"
	KubeletServer = "kubelet"
	Accounts      = "sa" // the key that signs tokens of service accounts
)

// KubeletClientUser is who the API server is to kubelets. It needs the role
// system:kubelet-api-admin.
const KubeletClientUser = "kube-apiserver-kubelet-client"

// everywhere are names by which an API server is known to pods and to its host.
var everywhere = []string{
	"localhost", "127.0.0.1", "::1", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
}

// Cluster makes all that a cluster's parts need to trust each other. It is
// safe to call again: what is there and good stays.
func (d *Dir) Cluster(c Cluster) error {
	for _, ca := range []string{CA, ProxyCA} {
		if err := d.Authority(ca); err != nil {
			return err
		}
	}
	if err := d.Signer(Accounts); err != nil {
		return err
	}
	list := []Certificate{
		{Name: APIServer, CA: CA, User: "kube-apiserver", Server: true, Hosts: append(slices.Clip(everywhere), c.Hosts...)},
		{Name: KubeletClient, CA: CA, User: KubeletClientUser},
		{Name: ProxyClient, CA: ProxyCA, User: "front-proxy-client"},
		{Name: Admin, CA: CA, User: "kubernetes-admin", Groups: []string{"system:masters"}},
	}
	configs := map[string]string{c.AdminAt: Admin}
	if c.Node != "" {
		list = append(list, Certificate{Name: KubeletServer, CA: CA, User: "system:node:" + c.Node, Groups: []string{"system:nodes"}, Server: true, Hosts: append([]string{c.Node, "127.0.0.1"}, c.NodeIPs...)})
	}
	if c.Parts {
		users := map[string]string{"scheduler": "system:kube-scheduler", "controllers": "system:kube-controller-manager", "proxy": "system:kube-proxy"}
		for name, user := range users {
			list = append(list, Certificate{Name: name, CA: CA, User: user})
		}
		list = append(list, Certificate{Name: "node", CA: CA, User: "system:node:" + c.Node, Groups: []string{"system:nodes"}})
		for name, file := range map[string]string{"scheduler": "scheduler", "controllers": "controllers", "proxy": "proxy", "node": "kubelet"} {
			configs[filepath.Join(d.Path, file+".kubeconfig")] = name
		}
	}
	for _, each := range list {
		if _, err := d.Ensure(each); err != nil {
			return err
		}
	}
	for path, name := range configs {
		if err := d.Kubeconfig(path, c.Server, CA, name); err != nil {
			return err
		}
	}
	return nil
}

// A Node says for which further node credentials are to be.
type Node struct {
	Name   string
	IPs    []string
	Server string // URL of the API server
	Dir    string // for the files: kubelet.crt and .key, ca.crt, kubelet.kubeconfig and proxy.kubeconfig
}

// Node makes what a further node's kubelet and service proxy are known by. It
// is safe to call again.
func (d *Dir) Node(n Node) error {
	ca, err := os.ReadFile(d.Cert(CA))
	if err != nil {
		return fmt.Errorf("make credentials of node %s: %w", n.Name, err)
	}
	serving, client, proxy := "node-"+n.Name+"-serving", "node-"+n.Name, "node-"+n.Name+"-proxy"
	for _, c := range []Certificate{
		{Name: serving, CA: CA, User: "system:node:" + n.Name, Groups: []string{"system:nodes"}, Server: true, Hosts: append([]string{n.Name, "127.0.0.1"}, n.IPs...)},
		{Name: client, CA: CA, User: "system:node:" + n.Name, Groups: []string{"system:nodes"}},
		{Name: proxy, CA: CA, User: "system:kube-proxy"},
	} {
		if _, err := d.Ensure(c); err != nil {
			return err
		}
	}
	if err := d.write(filepath.Join(n.Dir, "ca.crt"), ca); err != nil {
		return err
	}
	for from, to := range map[string]string{d.Cert(serving): "kubelet.crt", d.Key(serving): "kubelet.key"} {
		data, err := os.ReadFile(from)
		if err != nil {
			return fmt.Errorf("make credentials of node %s: %w", n.Name, err)
		}
		if err := d.write(filepath.Join(n.Dir, to), data); err != nil {
			return err
		}
	}
	if err := d.Kubeconfig(filepath.Join(n.Dir, "kubelet.kubeconfig"), n.Server, CA, client); err != nil {
		return err
	}
	return d.Kubeconfig(filepath.Join(n.Dir, "proxy.kubeconfig"), n.Server, CA, proxy)
}
