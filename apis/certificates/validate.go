package certificates

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis/check"
)

// unknownSigner was of requests from before signers had names.
const unknownSigner = "kubernetes.io/legacy-unknown"

var usages = []certificatesv1.KeyUsage{
	certificatesv1.UsageSigning, certificatesv1.UsageDigitalSignature, certificatesv1.UsageContentCommitment, certificatesv1.UsageKeyEncipherment,
	certificatesv1.UsageKeyAgreement, certificatesv1.UsageDataEncipherment, certificatesv1.UsageCertSign, certificatesv1.UsageCRLSign,
	certificatesv1.UsageEncipherOnly, certificatesv1.UsageDecipherOnly, certificatesv1.UsageAny, certificatesv1.UsageServerAuth,
	certificatesv1.UsageClientAuth, certificatesv1.UsageCodeSigning, certificatesv1.UsageEmailProtection, certificatesv1.UsageSMIME,
	certificatesv1.UsageIPsecEndSystem, certificatesv1.UsageIPsecTunnel, certificatesv1.UsageIPsecUser, certificatesv1.UsageTimestamping,
	certificatesv1.UsageOCSPSigning, certificatesv1.UsageMicrosoftSGC, certificatesv1.UsageNetscapeSGC,
}

// permits are what an endpoint may do that others may not.
type permits struct {
	decision    bool // approve or deny
	certificate bool // give the certificate
}

func validateRequest(r, old *certificatesv1.CertificateSigningRequest, may permits) field.ErrorList {
	root, s := check.New(), &r.Spec
	at := root.Dot("spec")
	if err := badRequest(s.Request); err != nil {
		at.Dot("request").Invalid(s.Request, err.Error())
	}
	usage(at.Dot("usages"), s.Usages, old)
	if name := at.Dot("signerName"); s.SignerName == unknownSigner && (old == nil || old.Spec.SignerName != unknownSigner) {
		name.Invalid(s.SignerName, "the legacy signerName is not allowed via this API version")
	} else if s.SignerName == "" {
		name.Required("")
	} else {
		signer(name, s.SignerName)
	}
	if n := s.ExpirationSeconds; n != nil && *n < 600 {
		at.Dot("expirationSeconds").Invalid(*n, "may not specify a duration less than 600 seconds (10 minutes)")
	}
	conditions(root.Dot("status.conditions"), r, old)
	certificate := root.Dot("status.certificate")
	kept := old != nil && (bytes.Equal(r.Status.Certificate, old.Status.Certificate) || badCertificate(old.Status.Certificate) != nil)
	if err := badCertificate(r.Status.Certificate); err != nil && !kept {
		certificate.Invalid("<certificate data>", err.Error())
	}
	if old == nil {
		return root.Errors()
	}
	decided(root.Dot("status.conditions"), r, old, may.decision)
	switch had := len(old.Status.Certificate) > 0; {
	case bytes.Equal(r.Status.Certificate, old.Status.Certificate):
	case !may.certificate:
		certificate.Forbidden("updates may not set certificate content")
	case had:
		certificate.Forbidden("updates may not modify existing certificate content")
	}
	return root.Errors()
}

// badRequest tells why text is no request for a certificate, in PEM.
func badRequest(text []byte) error {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return errors.New("PEM block type must be CERTIFICATE REQUEST")
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return err
	}
	return request.CheckSignature()
}

// badCertificate tells why text, where there is any, is no chain of
// certificates in PEM.
func badCertificate(text []byte) error {
	if len(text) == 0 {
		return nil
	}
	found := false
	for {
		block, rest := pem.Decode(text)
		switch {
		case block == nil && found:
			return nil
		case block == nil:
			return errors.New("must contain at least one CERTIFICATE PEM block")
		case block.Type != "CERTIFICATE":
			return fmt.Errorf("only CERTIFICATE PEM blocks are allowed, found %q", block.Type)
		case len(block.Headers) > 0:
			return errors.New("no PEM block headers are permitted")
		}
		certificates, err := x509.ParseCertificates(block.Bytes)
		if err != nil {
			return err
		}
		if len(certificates) == 0 {
			return errors.New("found CERTIFICATE PEM block containing 0 certificates")
		}
		text, found = rest, true
	}
}

// usage checks what the key is for. Faults that were stored may stay.
func usage(at check.At, all []certificatesv1.KeyUsage, old *certificatesv1.CertificateSigningRequest) {
	if len(all) == 0 {
		at.Required("")
	}
	unknown := func(u certificatesv1.KeyUsage) bool { return !slices.Contains(usages, u) }
	if old == nil || !slices.ContainsFunc(old.Spec.Usages, unknown) {
		for i, u := range all {
			check.OneOf(at.Index(i), u, usages...)
		}
	}
	if old != nil && repeats(old.Spec.Usages) {
		return
	}
	seen := check.Set[certificatesv1.KeyUsage]{}
	for i, u := range all {
		if seen.Twice(u) {
			at.Index(i).Duplicate(u)
		}
	}
}

func repeats[T comparable](all []T) bool {
	seen := check.Set[T]{}
	return slices.ContainsFunc(all, seen.Twice)
}

// signer demands the name of a signer: a domain, a slash and names with dots
// between.
func signer(at check.At, name string) {
	domain, path, _ := strings.Cut(name, "/")
	if strings.Count(name, "/") != 1 {
		at.Invalid(name, "must be a fully qualified domain and path of the form 'example.com/signer-name'")
		return
	}
	if len(domain) > utilvalidation.DNS1123SubdomainMaxLength {
		at.TooLong(utilvalidation.DNS1123SubdomainMaxLength)
	}
	parts(at, domain, utilvalidation.IsDNS1123Label)
	if !strings.Contains(domain, ".") {
		at.Invalid(domain, "should be a domain with at least two segments separated by dots")
	}
	parts(at, path, utilvalidation.IsDNS1123Subdomain)
	// So that namespace and name of something may follow.
	if most := utilvalidation.DNS1123SubdomainMaxLength + utilvalidation.DNS1123LabelMaxLength + 1; len(path) > most {
		at.TooLong(most)
	}
}

// parts tells what is wrong with the first bad one of names with dots between.
func parts(at check.At, name string, rule func(string) []string) {
	for part := range strings.SplitSeq(name, ".") {
		wrong := rule(part)
		for _, w := range wrong {
			at.Invalid(name, fmt.Sprintf("validating label %q: %s", part, w))
		}
		if len(wrong) > 0 {
			return
		}
	}
}

// conditions checks what is said of a request. Faults that were stored may stay.
func conditions(at check.At, r, old *certificatesv1.CertificateSigningRequest) {
	var was []certificatesv1.RequestConditionType
	if old != nil {
		was = types(old)
	}
	both := func(all []certificatesv1.RequestConditionType) bool {
		return slices.Contains(all, certificatesv1.CertificateApproved) && slices.Contains(all, certificatesv1.CertificateDenied)
	}
	nameless, repeated, undecided := slices.Contains(was, ""), repeats(was), both(was)
	seen := check.Set[certificatesv1.RequestConditionType]{}
	all := types(r)
	for i, c := range r.Status.Conditions {
		kind, status := at.Index(i).Dot("type"), at.Index(i).Dot("status")
		if c.Type == "" && !nameless {
			kind.Required("")
		}
		switch c.Type {
		case certificatesv1.CertificateApproved, certificatesv1.CertificateDenied, certificatesv1.CertificateFailed:
			check.Choice(status, c.Status, corev1.ConditionTrue)
		default:
			check.Choice(status, c.Status, corev1.ConditionTrue, corev1.ConditionFalse, corev1.ConditionUnknown)
		}
		if slices.Contains(decisions, c.Type) && both(all[:i+1]) && !undecided {
			at.Invalid(c.Type, "Approved and Denied conditions are mutually exclusive")
		}
		if seen.Twice(c.Type) && !repeated {
			kind.Duplicate(c.Type)
		}
	}
}

func types(r *certificatesv1.CertificateSigningRequest) []certificatesv1.RequestConditionType {
	all := make([]certificatesv1.RequestConditionType, len(r.Status.Conditions))
	for i, c := range r.Status.Conditions {
		all[i] = c.Type
	}
	return all
}

// decided demands that what was decided stays so, and that only those who may
// decide do. What they said of it cannot change: it is put back before.
func decided(at check.At, r, old *certificatesv1.CertificateSigningRequest, may bool) {
	for _, t := range append(slices.Clone(decisions), certificatesv1.CertificateFailed) {
		if len(where(r, t)) < len(where(old, t)) {
			at.Forbidden(fmt.Sprintf("updates may not remove a condition of type %q", t))
		}
	}
	for _, t := range decisions {
		if len(where(r, t)) > len(where(old, t)) && !may {
			at.Forbidden(fmt.Sprintf("updates may not add a condition of type %q", t))
		}
	}
}
