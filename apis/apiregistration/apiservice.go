package apiregistration

import (
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/validate/content"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
)

// Automanaged is the label of those that the server itself makes: once, when
// it starts, or as long as there is a definition that they are of.
const (
	Automanaged = "kube-aggregator.kubernetes.io/automanaged"
	OnStart     = "onstart"
	Always      = "true"
)

var apiServices = apis.Define(apis.Resource[*apiregistrationv1.APIService]{
	Plural:     "apiservices",
	Categories: []string{"api-extensions"},
	Scope:      apis.Cluster,
	StoredAt:   "apiregistration.k8s.io/apiservices",

	Default: func(s *apiregistrationv1.APIService) {
		if s.Spec.Service != nil && s.Spec.Service.Port == nil {
			s.Spec.Service.Port = new(int32(443))
		}
	},
	Prepare:  prepareAPIService,
	Validate: validateAPIService,
	Name:     func(string, bool) []string { return nil }, // validation holds it to group and version
	Subs: []apis.Sub[*apiregistrationv1.APIService]{{
		Name: "status", Keeps: append(meta.StatusMeta(), "spec"),
		Prepare:  func(_, _ *apiregistrationv1.APIService) {},
		Validate: validateStatus,
	}},
	Columns: []apis.Column[*apiregistrationv1.APIService]{
		{Name: "Service", Cell: func(s *apiregistrationv1.APIService, _ time.Time) any {
			if s.Spec.Service == nil {
				return "Local"
			}
			return s.Spec.Service.Namespace + "/" + s.Spec.Service.Name
		}},
		{Name: "Available", Cell: func(s *apiregistrationv1.APIService, _ time.Time) any { return availability(s) }},
	},
	Lifetime: apis.Lifetime[*apiregistrationv1.APIService]{NeedsVersion: true},
})

// Available returns the condition that says whether the group version is
// served, nil where nobody has looked yet.
func Available(s *apiregistrationv1.APIService) *apiregistrationv1.APIServiceCondition {
	for i := range s.Status.Conditions {
		if s.Status.Conditions[i].Type == apiregistrationv1.Available {
			return &s.Status.Conditions[i]
		}
	}
	return nil
}

// SetAvailable writes the condition down, and reports whether that changes
// anything. Local is the one of what the server serves itself.
func SetAvailable(s *apiregistrationv1.APIService, status apiregistrationv1.ConditionStatus, reason, message string, now metav1.Time) bool {
	have := Available(s)
	if have == nil {
		s.Status.Conditions = append(s.Status.Conditions, apiregistrationv1.APIServiceCondition{Type: apiregistrationv1.Available})
		have = &s.Status.Conditions[len(s.Status.Conditions)-1]
	}
	was := *have
	if have.Status != status {
		have.LastTransitionTime = now
	}
	have.Status, have.Reason, have.Message = status, reason, message
	return *have != was
}

// SetLocal says that the server serves the group version itself.
func SetLocal(s *apiregistrationv1.APIService, now metav1.Time) bool {
	return SetAvailable(s, apiregistrationv1.ConditionTrue, "Local", "Local APIServices are always available", now)
}

func availability(s *apiregistrationv1.APIService) string {
	switch c := Available(s); {
	case c == nil:
		return string(apiregistrationv1.ConditionUnknown)
	case c.Status != apiregistrationv1.ConditionTrue && c.Reason != "":
		return fmt.Sprintf("%s (%s)", c.Status, c.Reason)
	default:
		return string(c.Status)
	}
}

// prepareAPIService keeps the status. What the server serves itself is
// available at once.
func prepareAPIService(s, old *apiregistrationv1.APIService) {
	if old != nil {
		s.Status = *old.Status.DeepCopy()
		return
	}
	s.Status = apiregistrationv1.APIServiceStatus{}
	if s.Spec.Service == nil {
		SetLocal(s, s.CreationTimestamp)
	}
}

func validateAPIService(s, _ *apiregistrationv1.APIService) field.ErrorList {
	root := check.New()
	named(root.Dot("metadata.name"), s)
	at := root.Dot("spec")
	if s.Spec.Group == "" && s.Spec.Version != "v1" {
		at.Dot("group").Required("only v1 may have an empty group and it better be legacy kube")
	}
	if s.Spec.Group != "" {
		at.Dot("group").Subdomain(s.Spec.Group)
	}
	at.Dot("version").Wrong(s.Spec.Version, utilvalidation.IsDNS1035Label(s.Spec.Version))
	if n := s.Spec.GroupPriorityMinimum; n <= 0 || n > 20000 {
		at.Dot("groupPriorityMinimum").Invalid(n, "must be positive and less than 20000")
	}
	if n := s.Spec.VersionPriority; n <= 0 || n > 1000 {
		at.Dot("versionPriority").Invalid(n, "must be positive and less than 1000")
	}
	if s.Spec.Service == nil {
		if n := len(s.Spec.CABundle); n != 0 {
			at.Dot("caBundle").Invalid(fmt.Sprintf("%d bytes", n), "local APIServices may not have a caBundle")
		}
		if s.Spec.InsecureSkipTLSVerify {
			at.Dot("insecureSkipTLSVerify").Invalid(true, "local APIServices may not have insecureSkipTLSVerify")
		}
		return root.Errors()
	}
	service(at.Dot("service"), s.Spec.Service)
	if s.Spec.InsecureSkipTLSVerify && len(s.Spec.CABundle) > 0 {
		at.Dot("insecureSkipTLSVerify").Invalid(true, "may not be true if caBundle is present")
	}
	return root.Errors()
}

// named holds a name to the version and group.
func named(at check.At, s *apiregistrationv1.APIService) {
	want := s.Spec.Version + "." + s.Spec.Group
	switch wrong := content.IsPathSegmentName(s.Name); {
	case s.Name == "":
	case len(wrong) > 0:
		at.Wrong(s.Name, wrong)
	case s.Name != want:
		at.Invalid(s.Name, fmt.Sprintf("must be `spec.version+\".\"+spec.group`: %q", want))
	}
}

func service(at check.At, s *apiregistrationv1.ServiceReference) {
	if s.Namespace == "" {
		at.Dot("namespace").Required("")
	}
	if s.Name == "" {
		at.Dot("name").Required("")
	}
	port := meta.Deref(s.Port, 0)
	if wrong := utilvalidation.IsValidPortNum(int(port)); len(wrong) > 0 {
		at.Dot("port").Invalid(port, "port is not valid: "+strings.Join(wrong, ", "))
	}
}

func validateStatus(s, _ *apiregistrationv1.APIService) field.ErrorList {
	at := check.New()
	for i, c := range s.Status.Conditions {
		check.Listed(at.Dot("status.conditions").Index(i).Dot("status"), c.Status,
			apiregistrationv1.ConditionTrue, apiregistrationv1.ConditionFalse, apiregistrationv1.ConditionUnknown)
	}
	return at.Errors()
}
