package certificates

import (
	certificatesv1 "k8s.io/api/certificates/v1"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/meta"
)

var certificateSigningRequests = apis.Define(apis.Resource[*certificatesv1.CertificateSigningRequest]{
	Plural:  "certificatesigningrequests",
	Short:   []string{"csr"},
	Scope:   apis.Cluster,
	Prepare: meta.KeepStatus[*certificatesv1.CertificateSigningRequest],
	Subs:    []apis.Sub[*certificatesv1.CertificateSigningRequest]{{Name: "approval", Keeps: []string{"spec", "status.certificate"}, Prepare: func(_, _ *certificatesv1.CertificateSigningRequest) {}}, meta.Status[*certificatesv1.CertificateSigningRequest](nil)},
	Fields:  map[string]func(*certificatesv1.CertificateSigningRequest) string{"spec.signerName": func(c *certificatesv1.CertificateSigningRequest) string { return c.Spec.SignerName }},
})
