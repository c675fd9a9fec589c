package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/knarr-dev/knarr/cmd/knarr/pki"
)

// certs is the command that makes what parts in processes of their own trust
// each other by. knarr up does the same for itself.
func certs() *cobra.Command {
	var (
		c       pki.Cluster
		dir     string
		servers string
	)
	cmd := &cobra.Command{
		Use:   "certs",
		Short: "Make certificates and kubeconfigs for parts that run by themselves",
		Long: "Make the certificates, keys and kubeconfigs by which parts that run by themselves trust each other.\n" +
			"What is there and good stays; what nears its end is made anew, and the parts take it up without a restart.",
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&dir, "dir", "pki", "directory for them")
	cmd.Flags().StringSliceVar(&c.Hosts, "host", nil, "names and addresses by which the API server is reached, besides localhost and its names in the cluster")
	cmd.Flags().StringVar(&servers, "server", "https://127.0.0.1:6443", "URL of the API server, for the kubeconfigs")
	cmd.Flags().StringVar(&c.Node, "node-name", "", "name of the node to make a certificate and a kubeconfig for; this machine's where empty")
	cmd.Flags().StringSliceVar(&c.NodeIPs, "node-ip", nil, "addresses of the node")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		path, err := filepath.Abs(dir)
		if err != nil {
			return err
		}
		if c.Node == "" {
			if c.Node, err = os.Hostname(); err != nil {
				return fmt.Errorf("find the name of this machine: %w", err)
			}
		}
		c.Node, c.Parts, c.Server, c.AdminAt = strings.ToLower(c.Node), true, servers, filepath.Join(path, "admin.kubeconfig")
		d := &pki.Dir{Path: path, Now: time.Now}
		if err := d.Cluster(c); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s has certificates, keys, and kubeconfigs for admin, scheduler, controllers, kubelet and proxy.\n", path)
		return nil
	}
	return cmd
}
