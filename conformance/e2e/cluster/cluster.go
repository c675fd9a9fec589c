// Package cluster looks at the cluster that the suite is to run against:
// whether it is ready, and what a run left behind, which it removes.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// A Cluster is one to run the suite against.
type Cluster struct {
	Server  string
	Version string

	client  kubernetes.Interface
	dynamic dynamic.Interface
	old     map[string]bool // namespaces from before the run
}

// Open opens the cluster of a kubeconfig.
func Open(kubeconfig string) (*Cluster, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", kubeconfig, err)
	}
	config.Timeout = 20 * time.Second
	config.QPS, config.Burst = 50, 100
	return open(config)
}

func open(config *rest.Config) (*Cluster, error) {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	dyn, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return &Cluster{Server: config.Host, client: client, dynamic: dyn}, nil
}

// Ready is how many nodes pods can be put on, or an error that says what is
// not ready.
func (c *Cluster) Ready(ctx context.Context) (nodes int, err error) {
	version, err := c.client.Discovery().ServerVersion()
	if err != nil {
		return 0, fmt.Errorf("%s does not answer: %w", c.Server, err)
	}
	c.Version = version.GitVersion
	var faults []string
	if fault := c.readyz(ctx); fault != "" {
		faults = append(faults, fault)
	}
	list, err := c.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return 0, fmt.Errorf("list nodes: %w", err)
	}
	for _, n := range list.Items {
		if fault := nodeFault(&n); fault != "" {
			faults = append(faults, fault)
			continue
		}
		nodes++
	}
	if nodes == 0 && len(list.Items) == 0 {
		faults = append(faults, "there are no nodes")
	}
	if len(faults) > 0 {
		return nodes, fmt.Errorf("the cluster at %s is not ready:\n  %s", c.Server, strings.Join(faults, "\n  "))
	}
	return nodes, nil
}

func (c *Cluster) readyz(ctx context.Context) string {
	status := 0
	body, err := c.client.Discovery().RESTClient().Get().AbsPath("/readyz").Param("verbose", "").Do(ctx).StatusCode(&status).Raw()
	if err == nil && status == http.StatusOK {
		return ""
	}
	var bad []string
	for line := range strings.Lines(string(body)) {
		if strings.HasPrefix(line, "[-]") {
			bad = append(bad, strings.TrimSpace(line))
		}
	}
	if len(bad) == 0 {
		return fmt.Sprintf("/readyz: %v", err)
	}
	return "/readyz: " + strings.Join(bad, "; ")
}

// nodeFault says why pods cannot be put on a node, empty where they can.
func nodeFault(n *corev1.Node) string {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			if c.Status != corev1.ConditionTrue {
				return fmt.Sprintf("node %s is not ready: %s: %s", n.Name, c.Reason, c.Message)
			}
			return taintFault(n)
		}
	}
	return fmt.Sprintf("node %s has not said whether it is ready", n.Name)
}

func taintFault(n *corev1.Node) string {
	if n.Spec.Unschedulable {
		return fmt.Sprintf("node %s is cordoned", n.Name)
	}
	for _, t := range n.Spec.Taints {
		if t.Effect == corev1.TaintEffectNoSchedule || t.Effect == corev1.TaintEffectNoExecute {
			return fmt.Sprintf("node %s has the taint %s", n.Name, t.ToString())
		}
	}
	return ""
}

// ownLabel is on every namespace that the suite makes for a spec.
const ownLabel = "e2e-run"

// Remember notes which of the suite's namespaces there are, so that Clean
// spares them: somebody else's run may be at work.
func (c *Cluster) Remember(ctx context.Context) error {
	list, err := c.client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{LabelSelector: ownLabel})
	if err != nil {
		return fmt.Errorf("list namespaces: %w", err)
	}
	c.old = map[string]bool{}
	for _, ns := range list.Items {
		c.old[ns.Name] = true
	}
	return nil
}

// Clean removes the namespaces that the run made and left, with what sends
// the API server's requests into them, and waits until they are gone. It is
// the names of those it found.
func (c *Cluster) Clean(ctx context.Context) (left []string, err error) {
	list, err := c.client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{LabelSelector: ownLabel})
	if err != nil {
		return nil, fmt.Errorf("list namespaces: %w", err)
	}
	gone := map[string]bool{}
	for _, ns := range list.Items {
		if !c.old[ns.Name] {
			left = append(left, ns.Name)
			gone[ns.Name] = true
		}
	}
	if len(left) == 0 {
		return nil, nil
	}
	var errs []error
	for _, gvr := range senders {
		errs = append(errs, c.unhook(ctx, gvr, gone))
	}
	for _, name := range left {
		if err := c.client.CoreV1().Namespaces().Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("delete namespace %s: %w", name, err))
		}
	}
	return left, errors.Join(append(errs, c.gone(ctx, left))...)
}

func (c *Cluster) gone(ctx context.Context, names []string) error {
	return wait.PollUntilContextCancel(ctx, time.Second, true, func(ctx context.Context) (bool, error) {
		for _, name := range names {
			if _, err := c.client.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
				return false, nil
			}
		}
		return true, nil
	})
}

// senders are the kinds whose objects send the API server's requests to a
// service: left behind without it, they would make others' requests fail.
var senders = []schema.GroupVersionResource{
	{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "mutatingwebhookconfigurations"},
	{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingwebhookconfigurations"},
	{Group: "apiregistration.k8s.io", Version: "v1", Resource: "apiservices"},
	{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"},
}

// unhook deletes what sends requests to services in those namespaces.
func (c *Cluster) unhook(ctx context.Context, gvr schema.GroupVersionResource, gone map[string]bool) error {
	list, err := c.dynamic.Resource(gvr).List(ctx, metav1.ListOptions{})
	if apierrors.IsNotFound(err) {
		return nil // a cluster without the kind
	}
	if err != nil {
		return fmt.Errorf("list %s: %w", gvr.Resource, err)
	}
	var errs []error
	for _, obj := range list.Items {
		if !sends(&obj, gone) {
			continue
		}
		if err := c.dynamic.Resource(gvr).Delete(ctx, obj.GetName(), metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("delete %s %s: %w", gvr.Resource, obj.GetName(), err))
		}
	}
	return errors.Join(errs...)
}

// sends tells whether an object names a service in one of the namespaces.
func sends(obj *unstructured.Unstructured, namespaces map[string]bool) bool {
	webhooks, _, _ := unstructured.NestedSlice(obj.Object, "webhooks")
	for _, w := range webhooks {
		fields, _ := w.(map[string]any)
		if ns, _, _ := unstructured.NestedString(fields, "clientConfig", "service", "namespace"); namespaces[ns] {
			return true
		}
	}
	for _, path := range [][]string{
		{"spec", "service", "namespace"},
		{"spec", "conversion", "webhook", "clientConfig", "service", "namespace"},
	} {
		if ns, _, _ := unstructured.NestedString(obj.Object, path...); namespaces[ns] {
			return true
		}
	}
	return false
}
