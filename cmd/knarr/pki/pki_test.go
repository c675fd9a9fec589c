package pki

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
)

func newDir(t *testing.T) (*Dir, *time.Time) {
	t.Helper()
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	return &Dir{Path: t.TempDir(), Now: func() time.Time { return now }}, &now
}

var server = Certificate{Name: "apiserver", CA: "ca", User: "kube-apiserver", Server: true, Hosts: []string{"localhost", "10.0.0.1"}}

func ensure(t *testing.T, d *Dir, c Certificate) bool {
	t.Helper()
	made, err := d.Ensure(c)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func TestCertificate(t *testing.T) {
	d, now := newDir(t)
	if err := d.Authority("ca"); err != nil {
		t.Fatal(err)
	}
	if !ensure(t, d, server) {
		t.Fatal("nothing made")
	}
	cert, _, err := d.load("apiserver")
	if err != nil {
		t.Fatal(err)
	}
	ca, _, err := d.load("ca")
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	for _, host := range []string{"localhost", "10.0.0.1"} {
		if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: host, CurrentTime: *now}); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	info, err := os.Stat(d.Key("apiserver"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key has mode %v: %v", info.Mode(), err)
	}
}

// TestKept holds that what is good is kept, and what is not is made anew.
func TestKept(t *testing.T) {
	d, now := newDir(t)
	if err := d.Authority("ca"); err != nil {
		t.Fatal(err)
	}
	ensure(t, d, server)
	if ensure(t, d, server) {
		t.Error("a good certificate was replaced")
	}
	more := server
	more.Hosts = append(more.Hosts, "another")
	if !ensure(t, d, more) {
		t.Error("a certificate without a host that is wanted was kept")
	}
	if ensure(t, d, server) {
		t.Error("a certificate with a host more than is wanted was replaced")
	}
	*now = now.Add(200 * 24 * time.Hour)
	if ensure(t, d, server) {
		t.Error("replaced with half of its life left")
	}
	*now = now.Add(60 * 24 * time.Hour)
	if !ensure(t, d, server) {
		t.Error("kept with less than a third of its life left")
	}
	if err := os.WriteFile(d.Cert("apiserver"), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if !ensure(t, d, server) {
		t.Error("a damaged certificate was kept")
	}
}

// TestAuthorityIsNotReplaced holds that a damaged authority is an error that
// says what to do: whatever it has signed would be worth nothing.
func TestAuthorityIsNotReplaced(t *testing.T) {
	d, _ := newDir(t)
	if err := os.WriteFile(d.Cert("ca"), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.Authority("ca"); err == nil || !strings.Contains(err.Error(), "move it away") {
		t.Errorf("a damaged authority: %v", err)
	}
}

func TestSigner(t *testing.T) {
	d, _ := newDir(t)
	if err := d.Signer("sa"); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(d.Key("sa"))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Signer("sa"); err != nil {
		t.Fatal(err)
	}
	if after, _ := os.ReadFile(d.Key("sa")); string(after) != string(before) {
		t.Error("the key was replaced")
	}
}

func TestKubeconfig(t *testing.T) {
	d, _ := newDir(t)
	if err := d.Authority("ca"); err != nil {
		t.Fatal(err)
	}
	ensure(t, d, Certificate{Name: "admin", CA: "ca", User: "admin", Groups: []string{"system:masters"}})
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := d.Kubeconfig(path, "https://127.0.0.1:6443", "ca", "admin"); err != nil {
		t.Fatal(err)
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil || cfg.Host != "https://127.0.0.1:6443" || len(cfg.CAData) == 0 || len(cfg.CertData) == 0 || len(cfg.KeyData) == 0 {
		t.Errorf("read back %v: %v", cfg, err)
	}
}

func TestCluster(t *testing.T) {
	d, _ := newDir(t)
	c := Cluster{
		Hosts: []string{"192.0.2.1"}, Node: "n1", NodeIPs: []string{"192.0.2.1"}, Parts: true,
		Server: "https://192.0.2.1:6443", AdminAt: filepath.Join(d.Path, "admin.kubeconfig"),
	}
	if err := d.Cluster(c); err != nil {
		t.Fatal(err)
	}
	serving, _, err := d.load(APIServer)
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"192.0.2.1", "127.0.0.1", "kubernetes.default.svc"} {
		if err := serving.VerifyHostname(host); err != nil {
			t.Error(err)
		}
	}
	for file, user := range map[string]string{
		"admin": "kubernetes-admin", "scheduler": "system:kube-scheduler", "controllers": "system:kube-controller-manager",
		"kubelet": "system:node:n1", "proxy": "system:kube-proxy",
	} {
		cfg, err := clientcmd.LoadFromFile(filepath.Join(d.Path, file+".kubeconfig"))
		if err != nil {
			t.Fatal(err)
		}
		for _, info := range cfg.AuthInfos {
			block, _ := pem.Decode(info.ClientCertificateData)
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil || cert.Subject.CommonName != user {
				t.Errorf("%s is %v, %v", file, cert.Subject, err)
			}
		}
	}
	before := serving.SerialNumber
	if err := d.Cluster(c); err != nil {
		t.Fatal(err)
	}
	if again, _, err := d.load(APIServer); err != nil || again.SerialNumber.Cmp(before) != 0 {
		t.Errorf("a good certificate was made anew: %v", err)
	}
}
