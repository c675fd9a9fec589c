package meta

import (
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/intstr"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"

	"github.com/knarr-dev/knarr/apis/check"
)

// Share demands a number that is not below zero, or a percentage.
func Share(at check.At, n *intstr.IntOrString) {
	if n.Type == intstr.String {
		at.Wrong(*n, utilvalidation.IsValidPercent(n.StrVal))
		return
	}
	check.NonNegative(at, n.IntVal)
}

// AtMostAll demands that a percentage is not above 100.
func AtMostAll(at check.At, n *intstr.IntOrString) {
	if percent, ok := percentage(n); ok && percent > 100 {
		at.Invalid(*n, "must not be greater than 100%")
	}
}

// None reports whether n is zero, or zero percent.
func None(n *intstr.IntOrString) bool {
	if percent, ok := percentage(n); ok {
		return percent == 0
	}
	return n.IntValue() == 0
}

func percentage(n *intstr.IntOrString) (int, bool) {
	if n.Type != intstr.String || len(utilvalidation.IsValidPercent(n.StrVal)) > 0 {
		return 0, false
	}
	percent, _ := strconv.Atoi(strings.TrimSuffix(n.StrVal, "%"))
	return percent, true
}
