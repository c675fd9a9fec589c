// Command knarr is Kubernetes in one program: `knarr up` starts a whole
// cluster, and each part can be run by itself. Called by the name of a stock
// component, kube-apiserver or kubelet, it is that part.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/knarr-dev/knarr/cmd/knarr/demo"
	"github.com/knarr-dev/knarr/cmd/knarr/parts"
	"github.com/knarr-dev/knarr/cmd/knarr/up"
	"github.com/knarr-dev/knarr/registry/assembly"
)

// commit is the commit that was built, set by the linker.
var commit = "unknown"

// stockNames are the names under which knarr is a part.
var stockNames = map[string]string{
	"kube-apiserver": "apiserver", "kube-scheduler": "scheduler", "kube-controller-manager": "controllers",
	"kubelet": "kubelet", "kube-proxy": "proxy",
}

func main() {
	os.Exit(run(os.Args))
}

// run does what the arguments say and returns the exit status.
func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	// The first signal asks for an orderly end; a second one ends at once.
	context.AfterFunc(ctx, stop)
	cmd := root()
	rest := args[1:]
	if part, ok := stockNames[filepath.Base(args[0])]; ok {
		rest = append([]string{part}, rest...)
	}
	cmd.SetArgs(rest)
	if err := cmd.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "knarr:", err)
		return 1
	}
	return 0
}

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:           "knarr",
		Short:         "Kubernetes in one program",
		Long:          "Kubernetes in one program.\n\nknarr up starts a whole cluster on this machine; knarr down ends it.",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	cmd.AddCommand(up.Commands()...)
	cmd.AddCommand(
		part("apiserver", "Run the API server", &parts.APIServer{}), part("scheduler", "Run the scheduler", &parts.Scheduler{}),
		part("controllers", "Run the controllers", &parts.Controllers{}), part("kubelet", "Run the kubelet", &parts.Kubelet{}),
		part("proxy", "Run the service proxy", &parts.Proxy{}), part("dns", "Run the cluster's DNS", &parts.DNS{}),
		certs(), demo.Command(), version(),
	)
	return cmd
}

// program is a part that can be run by itself.
type program interface {
	parts.Options
	Main(ctx context.Context) error
}

// part is the command that runs a part.
func part(name, short string, p program) *cobra.Command {
	cmd := &cobra.Command{Use: name, Short: short, Args: cobra.NoArgs}
	p.Flags(cmd.Flags())
	ignored := parts.Stock(name, cmd.Flags())
	level := parts.Verbosity(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		parts.SetLog(cmd.ErrOrStderr(), level())
		for _, f := range ignored() {
			slog.Warn("the flag has no effect here", "flag", f)
		}
		return p.Main(cmd.Context())
	}
	return cmd
}

func version() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Tell the version", Args: cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			fmt.Fprintf(cmd.OutOrStdout(), "knarr %s, Kubernetes %s, %s %s/%s\n", commit, assembly.Release.GitVersion, runtime.Version(), runtime.GOOS, runtime.GOARCH)
		},
	}
}
