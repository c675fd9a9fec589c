package bootstrap

import (
	"fmt"
	"slices"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-dev/knarr/apis"
)

// levels are how much of the server's room each kind of traffic has: shares,
// the part of them that others may use meanwhile, and the queues.
var levels = []struct {
	name                string
	shares, lend        int32
	queues, hand, queue int32
}{
	{"exempt", 0, 0, 0, 0, 0},
	{"catch-all", 5, 0, 0, 0, 0},
	{"system", 30, 33, 64, 6, 50},
	{"node-high", 40, 25, 64, 6, 50},
	{"leader-election", 10, 0, 16, 4, 50},
	{"workload-high", 40, 50, 128, 6, 50},
	{"workload-low", 100, 90, 128, 6, 50},
	{"global-default", 20, 50, 128, 6, 50},
}

const (
	byUser      = flowcontrolv1.FlowDistinguisherMethodByUserType
	byNamespace = flowcontrolv1.FlowDistinguisherMethodByNamespaceType
)

// schemas are which traffic is of which level. Subjects are written as in
// held; s:* are all service accounts of kube-system.
var schemas = []struct {
	name, level string
	precedence  int32
	by          flowcontrolv1.FlowDistinguisherMethodType
	subjects    []string
	resources   []flowcontrolv1.ResourcePolicyRule
	paths       []flowcontrolv1.NonResourcePolicyRule
}{
	{"exempt", "exempt", 1, "", []string{"g:system:masters"}, anything, anyPath},
	{"probes", "exempt", 2, "", everybody, nil, []flowcontrolv1.NonResourcePolicyRule{
		{Verbs: []string{"get"}, NonResourceURLs: []string{"/healthz", "/readyz", "/livez"}},
	}},
	{
		"system-leader-election", "leader-election", 100, byUser,
		[]string{"system:kube-controller-manager", "system:kube-scheduler", "s:*"},
		[]flowcontrolv1.ResourcePolicyRule{{
			Verbs: []string{"get", "create", "update"}, APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, Namespaces: all,
		}},
		nil,
	},
	{"system-node-high", "node-high", 400, byUser, []string{"g:system:nodes"}, []flowcontrolv1.ResourcePolicyRule{
		{Verbs: all, APIGroups: []string{""}, Resources: []string{"nodes", "nodes/status"}, ClusterScope: true, Namespaces: all},
		{Verbs: all, APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, Namespaces: all},
	}, nil},
	{"system-nodes", "system", 500, byUser, []string{"g:system:nodes"}, anything, anyPath},
	{"kube-controller-manager", "workload-high", 800, byNamespace, []string{"system:kube-controller-manager"}, anything, anyPath},
	{"kube-scheduler", "workload-high", 800, byNamespace, []string{"system:kube-scheduler"}, anything, anyPath},
	{"kube-system-service-accounts", "workload-high", 900, byNamespace, []string{"s:*"}, anything, anyPath},
	{"service-accounts", "workload-low", 9000, byUser, []string{"g:system:serviceaccounts"}, anything, anyPath},
	{"global-default", "global-default", 9900, byUser, everybody, anything, anyPath},
	{"catch-all", "catch-all", 10000, byUser, everybody, anything, anyPath},
}

var (
	all       = []string{"*"}
	everybody = []string{"g:system:unauthenticated", "g:system:authenticated"}
	anything  = []flowcontrolv1.ResourcePolicyRule{{Verbs: all, APIGroups: all, Resources: all, ClusterScope: true, Namespaces: all}}
	anyPath   = []flowcontrolv1.NonResourcePolicyRule{{Verbs: all, NonResourceURLs: all}}
)

// mandatory are the levels and schemas that are as they are.
var mandatory = []string{"exempt", "catch-all"}

// Who keeps levels and schemas up to date, and who tells how they are.
const (
	flowKeeper = "api-priority-and-fairness-config-producer-v1"
	flowTeller = "api-priority-and-fairness-config-consumer-v1"
)

func flows(now time.Time) (wishes []wish) {
	for _, l := range levels {
		level := &flowcontrolv1.PriorityLevelConfiguration{ObjectMeta: kept(l.name)}
		if l.name == "exempt" {
			level.Spec = flowcontrolv1.PriorityLevelConfigurationSpec{
				Type:   flowcontrolv1.PriorityLevelEnablementExempt,
				Exempt: &flowcontrolv1.ExemptPriorityLevelConfiguration{NominalConcurrencyShares: new(l.shares), LendablePercent: new(l.lend)},
			}
		} else {
			level.Spec = limited(l.shares, l.lend, l.queues, l.hand, l.queue)
		}
		wishes = append(wishes, wish{gr: flow("prioritylevelconfigurations"), obj: level, manager: flowKeeper, amend: func(have apis.Object) bool {
			was := have.(*flowcontrolv1.PriorityLevelConfiguration)
			if mayDiffer(have) || apiequality.Semantic.DeepEqual(was.Spec, level.Spec) {
				return false
			}
			was.Spec = level.Spec
			was.Generation++
			return true
		}})
	}
	for i := range schemas {
		wishes = append(wishes, schemaWish(i, now))
	}
	return wishes
}

func limited(shares, lend, queues, hand, queue int32) flowcontrolv1.PriorityLevelConfigurationSpec {
	response := flowcontrolv1.LimitResponse{Type: flowcontrolv1.LimitResponseTypeReject}
	if queues > 0 {
		response = flowcontrolv1.LimitResponse{
			Type:    flowcontrolv1.LimitResponseTypeQueue,
			Queuing: &flowcontrolv1.QueuingConfiguration{Queues: queues, HandSize: hand, QueueLengthLimit: queue},
		}
	}
	return flowcontrolv1.PriorityLevelConfigurationSpec{
		Type: flowcontrolv1.PriorityLevelEnablementLimited,
		Limited: &flowcontrolv1.LimitedPriorityLevelConfiguration{
			NominalConcurrencyShares: new(shares), LendablePercent: new(lend), LimitResponse: response,
		},
	}
}

func flow(plural string) schema.GroupResource {
	return schema.GroupResource{Group: flowcontrolv1.GroupName, Resource: plural}
}

// kept is the metadata of what is kept as it is.
func kept(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, Annotations: map[string]string{flowcontrolv1.AutoUpdateAnnotationKey: "true"}}
}

// mayDiffer reports whether somebody has made an object his own.
func mayDiffer(have apis.Object) bool {
	says, ok := have.GetAnnotations()[flowcontrolv1.AutoUpdateAnnotationKey]
	touched := ok && says != "true" || !ok && have.GetGeneration() > 1
	return touched && !slices.Contains(mandatory, have.GetName())
}

func schemaWish(i int, now time.Time) wish {
	s := &schemas[i]
	obj := &flowcontrolv1.FlowSchema{
		ObjectMeta: kept(s.name),
		Spec: flowcontrolv1.FlowSchemaSpec{
			PriorityLevelConfiguration: flowcontrolv1.PriorityLevelConfigurationReference{Name: s.level},
			MatchingPrecedence:         s.precedence,
			Rules: []flowcontrolv1.PolicyRulesWithSubjects{{
				Subjects: flowSubjects(s.subjects), ResourceRules: s.resources, NonResourceRules: s.paths,
			}},
		},
	}
	if s.by != "" {
		obj.Spec.DistinguisherMethod = &flowcontrolv1.FlowDistinguisherMethod{Type: s.by}
	}
	return wish{
		gr: flow("flowschemas"), obj: obj, manager: flowKeeper,
		amend: func(have apis.Object) bool {
			was := have.(*flowcontrolv1.FlowSchema)
			if mayDiffer(have) || apiequality.Semantic.DeepEqual(was.Spec, obj.Spec) {
				return false
			}
			was.Spec = obj.Spec
			was.Generation++
			return true
		},
		finish: func(made apis.Object) { tellLevel(made.(*flowcontrolv1.FlowSchema), now) },
	}
}

// tellLevel notes in a schema that its level is there.
func tellLevel(s *flowcontrolv1.FlowSchema, now time.Time) {
	when := metav1.NewTime(now).Rfc3339Copy()
	level := s.Spec.PriorityLevelConfiguration.Name
	s.Status.Conditions = []flowcontrolv1.FlowSchemaCondition{{
		Type: flowcontrolv1.FlowSchemaConditionDangling, Status: flowcontrolv1.ConditionFalse, LastTransitionTime: when, Reason: "Found",
		Message: fmt.Sprintf("This FlowSchema references the PriorityLevelConfiguration object named %q and it exists", level),
	}}
	const fields = `{"f:status":{"f:conditions":{"k:{\"type\":\"Dangling\"}":` +
		`{".":{},"f:lastTransitionTime":{},"f:message":{},"f:reason":{},"f:status":{},"f:type":{}}}}}`
	s.ManagedFields = append([]metav1.ManagedFieldsEntry{{
		Manager: flowTeller, Operation: metav1.ManagedFieldsOperationApply, APIVersion: flowcontrolv1.SchemeGroupVersion.String(), Time: &when,
		FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(fields), Subresource: "status",
	}}, s.ManagedFields...)
}

func flowSubjects(names []string) (all []flowcontrolv1.Subject) {
	for _, s := range subjects(names) {
		f := flowcontrolv1.Subject{Kind: flowcontrolv1.SubjectKind(s.Kind)}
		switch s.Kind {
		case "User":
			f.User = &flowcontrolv1.UserSubject{Name: s.Name}
		case "Group":
			f.Group = &flowcontrolv1.GroupSubject{Name: s.Name}
		default:
			f.ServiceAccount = &flowcontrolv1.ServiceAccountSubject{Namespace: s.Namespace, Name: s.Name}
		}
		all = append(all, f)
	}
	return all
}
