package certificates

import (
	"slices"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/meta"
)

var certificateSigningRequests = apis.Define(apis.Resource[*certificatesv1.CertificateSigningRequest]{
	Plural: "certificatesigningrequests",
	Short:  []string{"csr"},
	Scope:  apis.Cluster,

	Prepare: prepareRequest,
	Validate: func(r, old *certificatesv1.CertificateSigningRequest) field.ErrorList {
		return validateRequest(r, old, permits{})
	},
	Name: meta.PathSegment,
	Subs: []apis.Sub[*certificatesv1.CertificateSigningRequest]{
		{
			Name:    "approval",
			Keeps:   []string{"spec", "status.certificate"},
			Prepare: func(_, _ *certificatesv1.CertificateSigningRequest) {},
			Validate: func(r, old *certificatesv1.CertificateSigningRequest) field.ErrorList {
				return validateRequest(r, old, permits{decision: true})
			},
		},
		{
			Name:    "status",
			Keeps:   []string{"spec"},
			Prepare: prepareRequestStatus,
			Validate: func(r, old *certificatesv1.CertificateSigningRequest) field.ErrorList {
				return validateRequest(r, old, permits{certificate: true})
			},
		},
	},

	Fields: map[string]func(*certificatesv1.CertificateSigningRequest) string{
		"spec.signerName": func(r *certificatesv1.CertificateSigningRequest) string { return r.Spec.SignerName },
	},
	Columns: []apis.Column[*certificatesv1.CertificateSigningRequest]{
		{Name: "Age", Cell: func(r *certificatesv1.CertificateSigningRequest, now time.Time) any {
			return apis.Age(r.CreationTimestamp, now)
		}},
		{Name: "SignerName", Cell: func(r *certificatesv1.CertificateSigningRequest, _ time.Time) any {
			return meta.Or(r.Spec.SignerName, "<none>")
		}},
		{Name: "Requestor", Cell: func(r *certificatesv1.CertificateSigningRequest, _ time.Time) any { return r.Spec.Username }},
		{Name: "RequestedDuration", Cell: func(r *certificatesv1.CertificateSigningRequest, _ time.Time) any {
			if r.Spec.ExpirationSeconds == nil {
				return "<none>"
			}
			return duration.HumanDuration(time.Duration(*r.Spec.ExpirationSeconds) * time.Second)
		}},
		{Name: "Condition", Cell: func(r *certificatesv1.CertificateSigningRequest, _ time.Time) any { return printState(&r.Status) }},
	},
})

// printState tells what became of a request.
func printState(s *certificatesv1.CertificateSigningRequestStatus) string {
	has := func(t certificatesv1.RequestConditionType) bool {
		return slices.ContainsFunc(s.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool { return c.Type == t })
	}
	state := "Pending"
	switch {
	case has(certificatesv1.CertificateDenied):
		state = "Denied"
	case has(certificatesv1.CertificateApproved):
		state = "Approved"
	}
	if has(certificatesv1.CertificateFailed) {
		state += ",Failed"
	}
	if len(s.Certificate) > 0 {
		state += ",Issued"
	}
	return state
}

// prepareRequest keeps all of a request that is there: only its subresources
// change it. Who asks is written down by registry/admit.
func prepareRequest(r, old *certificatesv1.CertificateSigningRequest) {
	meta.KeepStatus(r, old)
	if old != nil {
		r.Spec = old.Spec
	}
}

// prepareRequestStatus gives a signer the decisions that it does not take as
// they are, whatever it knows of them.
func prepareRequestStatus(r, old *certificatesv1.CertificateSigningRequest) {
	for _, t := range decisions {
		now, was := where(r, t), where(old, t)
		if len(now) != len(was) {
			continue
		}
		for i := range now {
			r.Status.Conditions[now[i]] = old.Status.Conditions[was[i]]
		}
	}
}

var decisions = []certificatesv1.RequestConditionType{certificatesv1.CertificateApproved, certificatesv1.CertificateDenied}

// where tells at which places the conditions of a type stand.
func where(r *certificatesv1.CertificateSigningRequest, t certificatesv1.RequestConditionType) (at []int) {
	for i, c := range r.Status.Conditions {
		if c.Type == t {
			at = append(at, i)
		}
	}
	return at
}
