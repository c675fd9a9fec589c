package up

import (
	"context"
	"errors"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/knarr-dev/knarr/cmd/knarr/parts"
)

// nodeCommand is the command about further nodes on this machine.
func nodeCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "node",
		Short: "Add and remove further nodes on this machine",
		Long: "Add and remove further nodes on this machine. Each has a network and a mount namespace, a containerd, a kubelet and a service proxy\n" +
			"of its own, and joins the cluster by a kubeconfig as a node on another machine would.",
	}
	cmd.PersistentFlags().StringVar(&path, "data-dir", defaultDir, "directory of the cluster")
	here := func() (*dir, error) {
		if os.Geteuid() != 0 {
			return nil, errors.New("knarr node must run as root, as knarr up did")
		}
		return existingDir(path)
	}
	// on is a command about one node that there is.
	on := func(use, short, done string, do func(context.Context, *dir, *member) error) *cobra.Command {
		return &cobra.Command{Use: use + " NAME", Short: short, Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
			d, err := here()
			if err != nil {
				return err
			}
			m, err := d.member(args[0])
			if err != nil {
				return err
			}
			if err := do(cmd.Context(), d, m); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), done+"\n", m.Name)
			return nil
		}}
	}
	cmd.AddCommand(
		addNode(here),
		on("remove", "Remove a node and all of its pods", "Node %s is gone.", func(ctx context.Context, d *dir, m *member) error { return d.remove(ctx, m) }),
		on("stop", "Stop a node as if its machine was switched off", "Node %s is off.", func(ctx context.Context, _ *dir, m *member) error {
			m.Stopped = true
			return errors.Join(m.write(), m.end(ctx))
		}),
		on("start", "Start a node that was stopped", "Node %s is ready.", func(ctx context.Context, d *dir, m *member) error {
			plan, err := d.runningPlan()
			if err != nil {
				return err
			}
			return errors.Join(m.start(plan), m.awaitReady(ctx))
		}),
		on("isolate", "Cut a node off the network", "Node %s is cut off; `knarr node rejoin` undoes that.", func(_ context.Context, _ *dir, m *member) error { return m.isolate(true) }),
		on("rejoin", "Undo isolate", "Node %s is on the network again.", func(_ context.Context, _ *dir, m *member) error { return m.isolate(false) }),
		listNodes(here), nodeAgent(here),
	)
	return cmd
}

func addNode(here func() (*dir, error)) *cobra.Command {
	return &cobra.Command{Use: "add [NAME]", Short: "Add a node", Args: cobra.MaximumNArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		d, err := here()
		if err != nil {
			return err
		}
		name := ""
		if len(args) > 0 {
			name = args[0]
		}
		began := time.Now()
		m, err := d.add(cmd.Context(), name)
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "Node %s is ready after %.1fs, at %s.\n", m.Name, time.Since(began).Seconds(), m.Address)
		return nil
	}}
}

func listNodes(here func() (*dir, error)) *cobra.Command {
	return &cobra.Command{Use: "list", Short: "List the nodes that were added", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		d, err := here()
		if err != nil {
			return err
		}
		list, err := d.members()
		if err != nil {
			return err
		}
		w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 3, ' ', 0)
		fmt.Fprintln(w, "NAME\tADDRESS\tSTATE\tLOG")
		for _, m := range list {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", m.Name, m.Address, m.state(), m.file(logFile))
		}
		return w.Flush()
	}}
}

// state is how a node is in one word.
func (m *member) state() string {
	_, runs := m.running(agentFile)
	switch {
	case m.Stopped:
		return "stopped"
	case !runs:
		return "dead"
	case m.isolated():
		return "isolated"
	}
	return "running"
}

// nodeAgent is the command that a node's agent is started by.
func nodeAgent(here func() (*dir, error)) *cobra.Command {
	cmd := &cobra.Command{Use: "agent NAME", Short: "Run a node's kubelet and service proxy", Args: cobra.ExactArgs(1), Hidden: true}
	level := parts.Verbosity(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		parts.SetLog(os.Stderr, level())
		d, err := here()
		if err != nil {
			return err
		}
		m, err := d.member(args[0])
		if err != nil {
			return err
		}
		plan, err := d.plan()
		if err != nil {
			return err
		}
		return m.agent(cmd.Context(), &plan.Options)
	}
	return cmd
}
