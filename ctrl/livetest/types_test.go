//go:build integration

package livetest

import (
	"context"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
)

// TestTypes shows that a policy's status says which expressions do not fit
// the kinds that they are about.
func TestTypes(t *testing.T) {
	client, _ := start(t)
	policies := client.AdmissionregistrationV1().ValidatingAdmissionPolicies()
	if _, err := policies.Create(t.Context(), &admissionregistrationv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "p"},
		Spec: admissionregistrationv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: &admissionregistrationv1.MatchResources{ResourceRules: []admissionregistrationv1.NamedRuleWithOperations{{
				RuleWithOperations: admissionregistrationv1.RuleWithOperations{
					Operations: []admissionregistrationv1.OperationType{"*"},
					Rule:       admissionregistrationv1.Rule{APIGroups: []string{"apps"}, APIVersions: []string{"v1"}, Resources: []string{"deployments"}},
				},
			}}},
			Variables: []admissionregistrationv1.Variable{{Name: "num", Expression: "object.spec.replicas"}},
			Validations: []admissionregistrationv1.Validation{
				{Expression: "object.spec.replicas > '1'"},
				{Expression: "object.spec.template.spec.containers.all(c, c.image != '') && variables.num > 1 && authorizer.group('').resource('pods').check('get').allowed()"},
				{Expression: "object.spec.maxRetries > 1", MessageExpression: "'n ' + string(object.spec.replicas)"},
			},
		},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	var p *admissionregistrationv1.ValidatingAdmissionPolicy
	if err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, 20*time.Second, true, func(ctx context.Context) (done bool, err error) {
		p, err = policies.Get(ctx, "p", metav1.GetOptions{})
		return err == nil && p.Status.ObservedGeneration == p.Generation, err
	}); err != nil {
		t.Fatal(err)
	}
	warnings := p.Status.TypeChecking.ExpressionWarnings
	if len(warnings) != 2 || warnings[0].FieldRef != "spec.validations[0].expression" || warnings[1].FieldRef != "spec.validations[2].expression" ||
		!strings.HasPrefix(warnings[0].Warning, "apps/v1, Kind=Deployment: ERROR: <input>:1:22: found no matching overload for '_>_' applied to '(int, string)'") ||
		!strings.Contains(warnings[1].Warning, "undefined field 'maxRetries'") {
		t.Errorf("warned of %q", warnings)
	}
}
