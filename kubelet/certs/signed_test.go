package certs

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// cluster signs what it is asked to, for so long, and counts how often.
func cluster(t *testing.T, life time.Duration, asked *atomic.Int32) kubernetes.Interface {
	client := fake.NewClientset()
	client.PrependReactor("create", "certificatesigningrequests", func(a clienttesting.Action) (bool, runtime.Object, error) {
		csr := a.(clienttesting.CreateAction).GetObject().(*certificatesv1.CertificateSigningRequest)
		csr.Name = fmt.Sprint("csr", asked.Load())
		// The fake watch shows all of them, whatever the selector.
		_ = client.Tracker().Delete(a.GetResource(), "", fmt.Sprint("csr", asked.Load()-1))
		return false, nil, nil
	})
	requests := client.CertificatesV1().CertificateSigningRequests()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	w, err := requests.Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for e := range w.ResultChan() {
			csr := e.Object.(*certificatesv1.CertificateSigningRequest).DeepCopy()
			if e.Type != watch.Added {
				continue
			}
			asked.Add(1)
			block, _ := pem.Decode(csr.Spec.Request)
			want, err := x509.ParseCertificateRequest(block.Bytes)
			if err != nil {
				t.Error(err)
				return
			}
			c := &x509.Certificate{
				SerialNumber: big.NewInt(2), Subject: want.Subject, DNSNames: want.DNSNames, IPAddresses: want.IPAddresses,
				NotBefore: time.Now().Add(-time.Second), NotAfter: time.Now().Add(life),
			}
			der, err := x509.CreateCertificate(rand.Reader, c, ca, want.PublicKey, key)
			if err != nil {
				t.Error(err)
				return
			}
			csr.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue}}
			csr.Status.Certificate = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
			if _, err := requests.UpdateStatus(context.Background(), csr, metav1.UpdateOptions{}); err != nil {
				t.Error(err)
			}
		}
	}()
	t.Cleanup(w.Stop)
	return client
}

// contract: N-6
func TestSign(t *testing.T) {
	var asked atomic.Int32
	dir, client := t.TempDir(), cluster(t, time.Hour, &asked)
	var with []bool // a certificate at hand
	r := Request{Node: "n1", Dir: dir, Client: func(current *tls.Certificate) (kubernetes.Interface, error) {
		with = append(with, current != nil)
		return client, nil
	}}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	s, err := Sign(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	c, err := s.Call(nil)
	if err != nil {
		t.Fatal(err)
	}
	if name := c.Leaf.Subject; name.CommonName != "system:node:n1" || !slices.Equal(name.Organization, []string{"system:nodes"}) {
		t.Errorf("signed for %v", name)
	}
	if !slices.Equal(with, []bool{false}) {
		t.Errorf("asked with certificates %v", with)
	}
	if _, err := Files(filepath.Join(dir, "kubelet-client-current.pem"), filepath.Join(dir, "kubelet-client-current.pem")); err != nil {
		t.Error(err)
	}
	again, err := Sign(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	if k, err := again.Call(nil); err != nil || !k.Leaf.Equal(c.Leaf) || asked.Load() != 1 {
		t.Errorf("a second start asked again: %v, %d times", err, asked.Load())
	}
}

func TestSignForServing(t *testing.T) {
	var asked atomic.Int32
	client := cluster(t, 3*time.Second, &asked)
	s, err := Sign(t.Context(), Request{
		Node: "n1", Dir: t.TempDir(), Client: func(*tls.Certificate) (kubernetes.Interface, error) { return client, nil },
		Addresses: func() []corev1.NodeAddress {
			return []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.0.0.1"}, {Type: corev1.NodeHostName, Address: "host"}}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	c, err := s.Serve(nil)
	if err != nil || !slices.Equal(c.Leaf.DNSNames, []string{"host"}) || !c.Leaf.IPAddresses[0].Equal(net.IPv4(10, 0, 0, 1)) {
		t.Fatalf("%v %v", c, err)
	}
	for deadline := time.After(20 * time.Second); ; {
		if k, err := s.Serve(nil); err == nil && !k.Leaf.Equal(c.Leaf) {
			break // renewed before it ended, or the next call would have failed
		}
		select {
		case <-deadline:
			t.Fatal("not renewed")
		case <-time.After(20 * time.Millisecond):
		}
	}
}
