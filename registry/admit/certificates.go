package admit

import (
	"context"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-dev/knarr/registry"
)

// csr is the request's certificate signing request, nil where it is about
// something else.
func (r *Request) csr() *certificatesv1.CertificateSigningRequest {
	c, _ := r.Object.(*certificatesv1.CertificateSigningRequest)
	return c
}

// requester writes down who asks for a certificate. It is no plugin of the
// stock server's but part of it.
func requester() Plugin {
	return Plugin{Name: "CertificateRequester", Mutate: func(_ context.Context, _ World, r *Request) error {
		csr := r.csr()
		if csr == nil || r.Operation != Create {
			return nil
		}
		csr.Spec.Username, csr.Spec.UID, csr.Spec.Groups, csr.Spec.Extra = r.User.Name, r.User.UID, slices.Clone(r.User.Groups), nil
		for k, v := range r.User.Extra {
			if csr.Spec.Extra == nil {
				csr.Spec.Extra = map[string]certificatesv1.ExtraValue{}
			}
			csr.Spec.Extra[k] = v
		}
		return nil
	}}
}

// certificateTimes writes down when a request for a certificate was approved,
// denied or has failed. It is no plugin of the stock server's but part of it.
func certificateTimes(cfg Config) Plugin {
	return Plugin{Name: "CertificateTimes", Mutate: func(_ context.Context, _ World, r *Request) error {
		csr := r.csr()
		if csr == nil || r.Operation != Update || r.Sub != "approval" && r.Sub != "status" {
			return nil
		}
		old, now := r.Old.(*certificatesv1.CertificateSigningRequest), metav1.NewTime(cfg.Now()).Rfc3339Copy()
		for i := range csr.Status.Conditions {
			c := &csr.Status.Conditions[i]
			if c.LastUpdateTime.IsZero() {
				c.LastUpdateTime = now
			}
			if !c.LastTransitionTime.IsZero() {
				continue
			}
			c.LastTransitionTime = now
			for _, was := range old.Status.Conditions {
				if was.Type == c.Type && was.Status == c.Status && !was.LastTransitionTime.IsZero() {
					c.LastTransitionTime = was.LastTransitionTime
				}
			}
		}
		return nil
	}}
}

// certificateApproval lets approve who may for the signer.
func certificateApproval(cfg Config) Plugin {
	return Plugin{Name: "CertificateApproval", Validate: func(ctx context.Context, _ World, r *Request) error {
		if r.csr() == nil || r.Operation != Update || r.Sub != "approval" {
			return nil
		}
		signer := r.Old.(*certificatesv1.CertificateSigningRequest).Spec.SignerName
		if !maySign(ctx, cfg, r, "approve", signer) {
			return forbid(r, "user not permitted to approve requests with signerName %q", signer)
		}
		return nil
	}}
}

// certificateSigning lets sign who may for the signer.
func certificateSigning(cfg Config) Plugin {
	return Plugin{Name: "CertificateSigning", Validate: func(ctx context.Context, _ World, r *Request) error {
		csr := r.csr()
		if csr == nil || r.Operation != Update || r.Sub != "status" {
			return nil
		}
		old := r.Old.(*certificatesv1.CertificateSigningRequest)
		if apiequality.Semantic.DeepEqual(old.Status, csr.Status) {
			return nil
		}
		if !maySign(ctx, cfg, r, "sign", old.Spec.SignerName) {
			return forbid(r, "user not permitted to sign requests with signerName %q", old.Spec.SignerName)
		}
		return nil
	}}
}

// maySign reports whether the user may do verb for a signer, or for all of
// the signer's domain.
func maySign(ctx context.Context, cfg Config, r *Request, verb, signer string) bool {
	domain, _, _ := strings.Cut(signer, "/")
	for _, name := range []string{signer, domain + "/*"} {
		asked := &registry.Request{
			User: r.User, Verb: verb, Resource: true, Group: "certificates.k8s.io", Version: "*", Plural: "signers", Name: name,
		}
		if cfg.May(ctx, asked) {
			return true
		}
	}
	return false
}

// certificateSubject refuses a certificate by which one could do everything.
func certificateSubject() Plugin {
	return Plugin{Name: "CertificateSubjectRestriction", Validate: func(_ context.Context, _ World, r *Request) error {
		csr := r.csr()
		if csr == nil || r.Operation != Create || csr.Spec.SignerName != certificatesv1.KubeAPIServerClientSignerName {
			return nil
		}
		request, err := parseCSR(csr.Spec.Request)
		if err != nil {
			return forbid(r, "failed to parse CSR: %w", err)
		}
		if slices.Contains(request.Subject.Organization, registry.SystemMasters) {
			return forbid(r, "use of %s signer with system:masters group is not allowed", certificatesv1.KubeAPIServerClientSignerName)
		}
		return nil
	}}
}
