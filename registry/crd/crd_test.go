package crd_test

import (
	"testing"

	"github.com/knarr-dev/knarr/registry/registrytest"
)

func TestExamples(t *testing.T) { registrytest.Play(t, "testdata/*.txtar") }
