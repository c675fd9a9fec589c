package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	main := func() { os.Exit(run(os.Args)) }
	testscript.Main(m, map[string]func(){"knarr": main, "kube-apiserver": main, "kubelet": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata"})
}
