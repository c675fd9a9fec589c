package flowcontrol

import (
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
)

// The schemas and levels that are always there, and as they are: one for what
// must get through and one for what nothing else is for.

var all = []string{flowcontrolv1.VerbAll}

var mandatorySchemas = map[string]*flowcontrolv1.FlowSchemaSpec{
	flowcontrolv1.FlowSchemaNameExempt: {
		MatchingPrecedence:         1,
		PriorityLevelConfiguration: flowcontrolv1.PriorityLevelConfigurationReference{Name: flowcontrolv1.PriorityLevelConfigurationNameExempt},
		Rules:                      everything("system:masters"),
	},
	flowcontrolv1.FlowSchemaNameCatchAll: {
		MatchingPrecedence:         flowcontrolv1.FlowSchemaMaxMatchingPrecedence,
		PriorityLevelConfiguration: flowcontrolv1.PriorityLevelConfigurationReference{Name: flowcontrolv1.PriorityLevelConfigurationNameCatchAll},
		DistinguisherMethod:        &flowcontrolv1.FlowDistinguisherMethod{Type: flowcontrolv1.FlowDistinguisherMethodByUserType},
		Rules:                      everything("system:unauthenticated", "system:authenticated"),
	},
}

// everything is all that groups may ask.
func everything(groups ...string) []flowcontrolv1.PolicyRulesWithSubjects {
	rules := flowcontrolv1.PolicyRulesWithSubjects{
		ResourceRules: []flowcontrolv1.ResourcePolicyRule{{
			Verbs: all, APIGroups: all, Resources: all, Namespaces: all, ClusterScope: true,
		}},
		NonResourceRules: []flowcontrolv1.NonResourcePolicyRule{{Verbs: all, NonResourceURLs: all}},
	}
	for _, g := range groups {
		rules.Subjects = append(rules.Subjects, flowcontrolv1.Subject{
			Kind: flowcontrolv1.SubjectKindGroup, Group: &flowcontrolv1.GroupSubject{Name: g},
		})
	}
	return []flowcontrolv1.PolicyRulesWithSubjects{rules}
}

var mandatoryLevels = map[string]*flowcontrolv1.PriorityLevelConfigurationSpec{
	flowcontrolv1.PriorityLevelConfigurationNameExempt: {Type: flowcontrolv1.PriorityLevelEnablementExempt},
	flowcontrolv1.PriorityLevelConfigurationNameCatchAll: {
		Type: flowcontrolv1.PriorityLevelEnablementLimited,
		Limited: &flowcontrolv1.LimitedPriorityLevelConfiguration{
			NominalConcurrencyShares: new(int32(5)), LendablePercent: new(int32),
			LimitResponse: flowcontrolv1.LimitResponse{Type: flowcontrolv1.LimitResponseTypeReject},
		},
	},
}
