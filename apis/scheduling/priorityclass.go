package scheduling

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-dev/knarr/apis"
	"github.com/knarr-dev/knarr/apis/check"
	"github.com/knarr-dev/knarr/apis/meta"
	"github.com/knarr-dev/knarr/apis/podspec"
)

// Priorities above what users may give are those of the system's own classes.
const (
	reserved = "system-"
	highest  = 1_000_000_000
	critical = 2 * highest
)

var system = map[string]int32{
	"system-cluster-critical": critical,
	"system-node-critical":    critical + 1000,
}

var priorityClasses = apis.Define(apis.Resource[*schedulingv1.PriorityClass]{
	Plural: "priorityclasses",
	Short:  []string{"pc"},
	Scope:  apis.Cluster,

	Default: func(c *schedulingv1.PriorityClass) {
		c.PreemptionPolicy = cmp.Or(c.PreemptionPolicy, new(corev1.PreemptLowerPriority))
	},
	Validate: validatePriorityClass,

	// Nothing that could change is a reason for another generation.
	Spec: func(*schedulingv1.PriorityClass) any { return nil },

	Columns: []apis.Column[*schedulingv1.PriorityClass]{
		{Name: "Value", Type: "integer", Cell: func(c *schedulingv1.PriorityClass, _ time.Time) any { return int64(c.Value) }},
		{Name: "Global-Default", Type: "boolean", Cell: func(c *schedulingv1.PriorityClass, _ time.Time) any { return c.GlobalDefault }},
		{Name: "Age", Cell: func(c *schedulingv1.PriorityClass, now time.Time) any { return apis.Age(c.CreationTimestamp, now) }},
		{Name: "PreemptionPolicy", Cell: func(c *schedulingv1.PriorityClass, _ time.Time) any {
			return string(meta.Deref(c.PreemptionPolicy, ""))
		}},
	},
})

func validatePriorityClass(c, old *schedulingv1.PriorityClass) field.ErrorList {
	at := check.New()
	if old != nil {
		if c.Value != old.Value {
			at.Dot("value").Forbidden("may not be changed in an update.")
		}
		at.Dot("preemptionPolicy").Same(c.PreemptionPolicy, old.PreemptionPolicy)
		return at.Errors()
	}
	switch wrong := unknown(c); {
	case !strings.HasPrefix(c.Name, reserved):
		if c.Value > highest {
			at.Dot("value").Forbidden(fmt.Sprintf("maximum allowed value of a user defined priority is %d", highest))
		}
	case wrong != "":
		at.Dot("metadata.name").Forbidden("priority class names with '" + reserved + "' prefix are reserved for system use only. error: " + wrong)
	}
	if c.PreemptionPolicy != nil {
		podspec.Preemption(at.Dot("preemptionPolicy"), *c.PreemptionPolicy)
	}
	return at.Errors()
}

// unknown tells why a class is not one of the system's own.
func unknown(c *schedulingv1.PriorityClass) string {
	value, known := system[c.Name]
	switch {
	case !known:
		return c.Name + " is not a known system priority class"
	case c.Value != value:
		return fmt.Sprintf("value of %s PriorityClass must be %d", c.Name, value)
	case c.GlobalDefault:
		return fmt.Sprintf("globalDefault of %s PriorityClass must be false", c.Name)
	}
	return ""
}
