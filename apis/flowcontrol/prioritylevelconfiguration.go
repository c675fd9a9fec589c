package flowcontrol

import (
	"cmp"
	"fmt"
	"math"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
)

var priorityLevelConfigurations = apis.Define(apis.Resource[*flowcontrolv1.PriorityLevelConfiguration]{
	Plural: "prioritylevelconfigurations",
	Scope:  apis.Cluster,

	Default:  defaultLevel,
	Prepare:  meta.KeepStatus[*flowcontrolv1.PriorityLevelConfiguration],
	Validate: validateLevel,
	Spec:     func(p *flowcontrolv1.PriorityLevelConfiguration) any { return &p.Spec },
	Subs:     []apis.Sub[*flowcontrolv1.PriorityLevelConfiguration]{meta.Status(validateLevelStatus, meta.StatusMeta()...)},

	Columns: []apis.Column[*flowcontrolv1.PriorityLevelConfiguration]{
		{Name: "Type", Cell: func(p *flowcontrolv1.PriorityLevelConfiguration, _ time.Time) any { return string(p.Spec.Type) }},
		{Name: "NominalConcurrencyShares", Cell: func(p *flowcontrolv1.PriorityLevelConfiguration, _ time.Time) any {
			if p.Spec.Limited == nil {
				return "<none>"
			}
			return int64(meta.Deref(p.Spec.Limited.NominalConcurrencyShares, 0))
		}},
		queueColumn("Queues", func(q *flowcontrolv1.QueuingConfiguration) int32 { return q.Queues }),
		queueColumn("HandSize", func(q *flowcontrolv1.QueuingConfiguration) int32 { return q.HandSize }),
		queueColumn("QueueLengthLimit", func(q *flowcontrolv1.QueuingConfiguration) int32 { return q.QueueLengthLimit }),
	},
})

func queueColumn(name string, n func(*flowcontrolv1.QueuingConfiguration) int32) apis.Column[*flowcontrolv1.PriorityLevelConfiguration] {
	return apis.Column[*flowcontrolv1.PriorityLevelConfiguration]{
		Name: name,
		Cell: func(p *flowcontrolv1.PriorityLevelConfiguration, _ time.Time) any {
			if l := p.Spec.Limited; l != nil && l.LimitResponse.Queuing != nil {
				return int64(n(l.LimitResponse.Queuing))
			}
			return "<none>"
		},
	}
}

func defaultLevel(p *flowcontrolv1.PriorityLevelConfiguration) {
	if e := p.Spec.Exempt; e != nil {
		e.NominalConcurrencyShares = cmp.Or(e.NominalConcurrencyShares, new(int32))
		e.LendablePercent = cmp.Or(e.LendablePercent, new(int32))
	}
	l := p.Spec.Limited
	if l == nil {
		return
	}
	l.NominalConcurrencyShares = cmp.Or(l.NominalConcurrencyShares, new(int32(30)))
	l.LendablePercent = cmp.Or(l.LendablePercent, new(int32))
	if q := l.LimitResponse.Queuing; q != nil {
		q.HandSize = cmp.Or(q.HandSize, 8)
		q.Queues = cmp.Or(q.Queues, 64)
		q.QueueLengthLimit = cmp.Or(q.QueueLengthLimit, 50)
	}
}

func validateLevel(p, _ *flowcontrolv1.PriorityLevelConfiguration) field.ErrorList {
	root := check.New()
	// It stood for a field in versions that are gone.
	const gone = "flowcontrol.k8s.io/v1beta3-preserve-zero-concurrency-shares"
	if _, set := p.Annotations[gone]; set {
		root.Dot("metadata.annotations").Forbidden("annotation '" + gone + "' is forbidden")
	}
	at, s := root.Dot("spec"), &p.Spec
	level(at, s, p.Name == flowcontrolv1.PriorityLevelConfigurationNameExempt)
	if m := mandatoryLevels[p.Name]; m != nil {
		have, but := *s, ""
		if m.Type == flowcontrolv1.PriorityLevelEnablementExempt {
			have.Exempt, but = nil, "except the 'spec.exempt' field "
		}
		if !equality.Semantic.DeepEqual(&have, m) {
			at.Invalid(check.Bare(s), "spec of '"+p.Name+"' "+but+"must equal the fixed value")
		}
	}
	conditionTypes(root.Dot("status.conditions"), p.Status.Conditions, levelCondition)
	return root.Errors()
}

func levelCondition(c flowcontrolv1.PriorityLevelConfigurationCondition) string {
	return string(c.Type)
}

func validateLevelStatus(p, _ *flowcontrolv1.PriorityLevelConfiguration) field.ErrorList {
	at := check.New()
	conditionTypes(at.Dot("status.conditions"), p.Status.Conditions, levelCondition)
	return at.Errors()
}

func level(at check.At, s *flowcontrolv1.PriorityLevelConfigurationSpec, exempt bool) {
	const free, limited = flowcontrolv1.PriorityLevelEnablementExempt, flowcontrolv1.PriorityLevelEnablementLimited
	if exempt != (s.Type == free) {
		at.Dot("type").Invalid(s.Type, "must be 'Exempt' if and only if `name` is 'exempt'")
	}
	switch s.Type {
	case free:
		if s.Limited != nil {
			at.Dot("limited").Forbidden("must be nil if the type is not Limited")
		}
		if e := s.Exempt; e != nil {
			share(at.Dot("exempt"), e.NominalConcurrencyShares, e.LendablePercent, nil)
		}
	case limited:
		if s.Exempt != nil {
			at.Dot("exempt").Forbidden("must be nil if the type is Limited")
		}
		if s.Limited == nil {
			at.Dot("limited").Required("must not be empty when type is Limited")
			return
		}
		l := s.Limited
		share(at.Dot("limited"), l.NominalConcurrencyShares, l.LendablePercent, func(at check.At) { response(at, l.LimitResponse) })
		if most := l.BorrowingLimitPercent; most != nil && *most < 0 {
			at.Dot("limited.borrowingLimitPercent").Invalid(*most, "if specified, must be a non-negative integer")
		}
	default:
		check.Choice(at.Dot("type"), s.Type, free, limited)
	}
}

// share checks how much of the server's room a level has and lends, and
// between the two whatever else.
func share(at check.At, shares, lend *int32, between func(at check.At)) {
	if shares != nil && *shares < 0 {
		at.Dot("nominalConcurrencyShares").Invalid(*shares, "must be a non-negative integer")
	}
	if between != nil {
		between(at.Dot("limitResponse"))
	}
	if lend != nil && (*lend < 0 || *lend > 100) {
		at.Dot("lendablePercent").Invalid(*lend, "must be between 0 and 100, inclusive")
	}
}

func response(at check.At, r flowcontrolv1.LimitResponse) {
	const queue, reject = flowcontrolv1.LimitResponseTypeQueue, flowcontrolv1.LimitResponseTypeReject
	switch q := r.Queuing; r.Type {
	case reject:
		if q != nil {
			at.Dot("queuing").Forbidden("must be nil if limited.limitResponse.type is not Limited")
		}
	case queue:
		if q == nil {
			at.Dot("queuing").Required("must not be empty if limited.limitResponse.type is Limited")
		} else {
			queuing(at.Dot("queuing"), q)
		}
	default:
		check.Choice(at.Dot("type"), r.Type, queue, reject)
	}
}

// queuing checks queues, of which each flow is dealt a hand.
func queuing(at check.At, q *flowcontrolv1.QueuingConfiguration) {
	const (
		most    = 10_000_000
		entropy = 60 // bits that a hand can be dealt by, so that none is much likelier than others
	)
	if q.QueueLengthLimit <= 0 {
		at.Dot("queueLengthLimit").Invalid(q.QueueLengthLimit, "must be positive")
	}
	if q.Queues <= 0 {
		at.Dot("queues").Invalid(q.Queues, "must be positive")
	} else if q.Queues > most {
		at.Dot("queues").Invalid(q.Queues, fmt.Sprintf("must not be greater than %d", most))
	}
	switch hand := at.Dot("handSize"); {
	case q.HandSize <= 0:
		hand.Invalid(q.HandSize, "must be positive")
	case q.HandSize > q.Queues:
		hand.Invalid(q.HandSize, fmt.Sprintf("should not be greater than queues (%d)", q.Queues))
	case math.Ceil(math.Log2(float64(q.Queues))*float64(q.HandSize)) > entropy:
		hand.Invalid(q.HandSize, fmt.Sprintf("required entropy bits of deckSize %d and handSize %d should not be greater than %d",
			q.Queues, q.HandSize, entropy))
	}
}
