package kubelet

import "testing"

func TestExpand(t *testing.T) {
	values := map[string]string{"A": "one", "B": "$(A)", "EMPTY": ""}
	for in, want := range map[string]string{
		"":               "",
		"plain":          "plain",
		"$(A)":           "one",
		"x$(A)y$(A)z":    "xoneyonez",
		"$(B)":           "$(A)",
		"$(EMPTY)":       "",
		"$(NONE)":        "$(NONE)",
		"$$(A)":          "$(A)",
		"$$$(A)":         "$one",
		"$$$$(A)":        "$$(A)",
		"$A":             "$A",
		"$":              "$",
		"cost $":         "cost $",
		"$(A":            "$(A",
		"$(A $(A)":       "$(A $(A)",
		"$()":            "$()",
		"$$":             "$",
		"a $b $(A) $$ $": "a $b one $ $",
	} {
		got := Expand(in, func(name string) (string, bool) { v, ok := values[name]; return v, ok })
		if got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}
