// Package demo is what runs in the image knarr.local/demo: a small server to
// try deployments and services with, and a few ways of behaving that one
// wants to see a cluster deal with. There is no shell in the image.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// Command returns the demo command.
func Command() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Be what runs in the image knarr.local/demo",
		Long:  "Serve HTTP on port 8080 and answer with the name of the pod.",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return serve(cmd.Context(), cmd.OutOrStdout(), ":8080") },
	}
	cmd.AddCommand(sleep(), crash(), dial())
	return cmd
}

// patience is how long requests in flight may take once the pod is to go.
const patience = 5 * time.Second

// serve answers every request with the pod's name, and a variable of the
// environment if the path names one, until ctx ends.
func serve(ctx context.Context, out io.Writer, address string) error {
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s serves on %s\n", name, l.Addr())
	srv := &http.Server{ReadHeaderTimeout: patience, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(out, "%s %s from %s\n", r.Method, r.URL.Path, r.RemoteAddr)
		if variable, ok := strings.CutPrefix(r.URL.Path, "/env/"); ok {
			fmt.Fprintln(w, os.Getenv(variable))
			return
		}
		fmt.Fprintln(w, name)
	})}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	fmt.Fprintf(out, "%s is asked to go\n", name)
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	return srv.Shutdown(last)
}

func sleep() *cobra.Command {
	return &cobra.Command{
		Use: "sleep DURATION", Short: "Do nothing for a while, as 10s, or without end for 0", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := time.ParseDuration(args[0])
			if err != nil {
				return err
			}
			var end <-chan time.Time
			if d > 0 {
				end = time.After(d)
			}
			select {
			case <-end:
			case <-cmd.Context().Done():
			}
			return nil
		},
	}
}

func crash() *cobra.Command {
	var after time.Duration
	cmd := &cobra.Command{
		Use: "crash", Short: "Fail", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			select {
			case <-time.After(after):
			case <-cmd.Context().Done():
			}
			return errors.New("crashed, as it was asked to")
		},
	}
	cmd.Flags().DurationVar(&after, "after", 0, "how long to wait before")
	return cmd
}

func dial() *cobra.Command {
	var times int
	cmd := &cobra.Command{
		Use: "dial URL", Short: "Ask a server many times, over a new connection each, and count its answers", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return ask(cmd.Context(), cmd.OutOrStdout(), args[0], times)
		},
	}
	cmd.Flags().IntVarP(&times, "times", "n", 1, "how many times")
	return cmd
}

// ask prints how often each answer came. A request that fails is an answer
// too, and makes the whole fail.
func ask(ctx context.Context, out io.Writer, url string, times int) error {
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	answers, failed := map[string]int{}, 0
	for range times {
		answer, err := get(ctx, client, url)
		if err != nil {
			answer = err.Error()
			failed++
		}
		answers[answer]++
	}
	for _, a := range slices.Sorted(maps.Keys(answers)) {
		fmt.Fprintf(out, "%6d %s\n", answers[a], a)
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d requests failed", failed, times)
	}
	return nil
}

func get(ctx context.Context, client *http.Client, url string) (string, error) {
	if !strings.Contains(url, "://") {
		url = "http://" + url
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	body, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return "", err
	}
	return strings.TrimSpace(string(body)), nil
}
