package up

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// statusPatience is how long the API server may take to say how its nodes are.
const statusPatience = 3 * time.Second

// tell writes down that the cluster runs, and where.
func (c *cluster) tell(endpoint string) error {
	return c.dir.write(stateFile, State{
		PID: os.Getpid(), Kubeconfig: c.dir.file(adminFile), DataDir: c.dir.path, Server: c.server(), Runtime: endpoint,
		Started: time.Now().Truncate(time.Second), Log: c.dir.file(logFile),
	})
}

// status finds out how the cluster is.
func (d *dir) status(ctx context.Context) (State, error) {
	s := State{DataDir: d.path, Kubeconfig: d.file(adminFile), Log: d.file(logFile)}
	pid, err := d.holder()
	if err != nil {
		return s, err
	}
	if _, err := d.read(stateFile, &s); err != nil {
		return s, err
	}
	s.Nodes = []Node{}
	if s.PID != pid { // what is written there is of an earlier one
		s.PID, s.Started = pid, time.Time{}
	}
	if pid == 0 {
		return s, nil
	}
	list, err := nodes(ctx, s.Kubeconfig)
	if err != nil {
		s.Problem = err.Error()
		return s, nil //nolint:nilerr // that is the status
	}
	s.Nodes = list
	return s, nil
}

// nodes asks the API server for its nodes.
func nodes(ctx context.Context, kubeconfig string) ([]Node, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	cfg.Timeout = statusPatience
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, err
	}
	list, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	all := []Node{}
	for i := range list.Items {
		all = append(all, Node{Name: list.Items[i].Name, Ready: isReady(&list.Items[i])})
	}
	return all, nil
}

// print tells a person.
func (s State) print(out io.Writer) {
	if s.PID == 0 {
		fmt.Fprintf(out, "The cluster in %s is stopped: `knarr up` starts it.\n", s.DataDir)
		return
	}
	up := "starting"
	if !s.Started.IsZero() {
		up = "up " + time.Since(s.Started).Truncate(time.Second).String()
	}
	for _, line := range [][2]string{
		{"API server", s.Server},
		{"Kubeconfig", s.Kubeconfig},
		{"Data", s.DataDir},
		{"Runtime", s.Runtime},
		{"Log", s.Log},
		{"Process", fmt.Sprintf("%d, %s", s.PID, up)},
	} {
		fmt.Fprintf(out, "%-11s %s\n", line[0], line[1])
	}
	for _, n := range s.Nodes {
		ready := "Ready"
		if !n.Ready {
			ready = "NotReady"
		}
		fmt.Fprintf(out, "%-11s %s, %s\n", "Node", n.Name, ready)
	}
	if s.Problem != "" {
		fmt.Fprintf(out, "%-11s %s\n", "Problem", s.Problem)
	}
}

func statusCommand() *cobra.Command {
	var path, format string
	cmd := &cobra.Command{Use: "status", Short: "Tell what runs and where", Args: cobra.NoArgs}
	cmd.Flags().StringVar(&path, "data-dir", defaultDir, "directory of the cluster")
	cmd.Flags().StringVarP(&format, "output", "o", "", "json for programs")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if format != "" && format != "json" {
			return fmt.Errorf("--output: %q is not known, json is", format)
		}
		d, err := existingDir(path)
		if err != nil {
			return err
		}
		s, err := d.status(cmd.Context())
		if err != nil {
			return err
		}
		if format == "" {
			s.print(cmd.OutOrStdout())
			return nil
		}
		out := json.NewEncoder(cmd.OutOrStdout())
		out.SetIndent("", "  ")
		return out.Encode(s)
	}
	return cmd
}
