//go:build pins

package main

// What the module is for, named so that go mod tidy keeps it.
import _ "k8s.io/kubernetes/test/e2e"
