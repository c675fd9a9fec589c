// Command kubectl is the stock client, built from its own module so that a
// fresh machine has one of the right version.
package main

import (
	"os"

	// The ways to authenticate that are not built in.
	_ "k8s.io/client-go/plugin/pkg/client/auth"
	"k8s.io/component-base/cli"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
)

func main() {
	if err := cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()); err != nil {
		// Pretty-prints the error and ends with its exit status.
		util.CheckErr(err)
		os.Exit(1)
	}
}
