package webhook_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-dev/knarr/registry/admit"
	"github.com/knarr-dev/knarr/registry/registrytest"
	"github.com/knarr-dev/knarr/registry/webhook"
	"github.com/knarr-dev/knarr/registry/world"
)

// BenchmarkNone is what a write costs where there is no webhook.
func BenchmarkNone(b *testing.B) {
	s := registrytest.Run(b)
	w, ok := s.Rest.Admit.World.(*world.World)
	if !ok {
		b.Fatalf("the world is a %T", s.Rest.Admit.World)
	}
	cfg := webhook.Config{Service: s.Rest, World: w}
	chain := &admit.Chain{World: w, Plugins: []admit.Plugin{webhook.Mutating(cfg), webhook.Validating(cfg)}}
	r := &admit.Request{Operation: admit.Create, Kind: s.Rest.Kind(corev1.Resource("configmaps")).Definition, Object: &corev1.ConfigMap{}}
	b.ReportAllocs()
	for b.Loop() {
		if err := chain.Mutate(b.Context(), r); err != nil {
			b.Fatal(err)
		}
		if err := chain.Validate(b.Context(), r); err != nil {
			b.Fatal(err)
		}
	}
}
