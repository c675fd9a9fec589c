package connect_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/exec"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"

	"github.com/knarr-dev/knarr/registry/registrytest"
)

// A kubelet is one whose containers are all in this process. It streams by
// the code that container runtimes do.
type kubelet struct {
	*httptest.Server

	logs      http.HandlerFunc // must be there where logs are asked for
	peers     func(int)        // is told how many certificates each client shows; may be nil
	abandoned chan struct{}    // gets one for each process whose client has gone

	mu   sync.Mutex
	seen []string
}

const streamTime = 10 * time.Second

func newKubelet(t *testing.T) *kubelet {
	t.Helper()
	k := &kubelet{abandoned: make(chan struct{}, 10)}
	mux := http.NewServeMux()
	mux.HandleFunc("/containerLogs/{ns}/{pod}/{container}", func(w http.ResponseWriter, r *http.Request) { k.logs(w, r) })
	mux.HandleFunc("/exec/{ns}/{pod}/{container}", func(w http.ResponseWriter, r *http.Request) {
		if opts := options(w, r); opts != nil {
			remotecommand.ServeExec(w, r, k, r.PathValue("pod"), "", r.PathValue("container"), r.URL.Query()["command"], opts,
				time.Hour, streamTime, remotecommand.SupportedStreamingProtocols)
		}
	})
	mux.HandleFunc("/attach/{ns}/{pod}/{container}", func(w http.ResponseWriter, r *http.Request) {
		if opts := options(w, r); opts != nil {
			remotecommand.ServeAttach(w, r, k, r.PathValue("pod"), "", r.PathValue("container"), opts,
				time.Hour, streamTime, remotecommand.SupportedStreamingProtocols)
		}
	})
	mux.HandleFunc("/portForward/{ns}/{pod}", func(w http.ResponseWriter, r *http.Request) {
		opts, err := portforward.NewV4Options(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		portforward.ServePortForward(w, r, k, r.PathValue("pod"), "", opts, time.Hour, streamTime, portforward.SupportedProtocols)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "%s %s", r.Method, r.URL) })
	k.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		k.mu.Lock()
		k.seen = append(k.seen, strings.TrimSpace(r.Header.Get("Upgrade")+" "+r.URL.String()))
		k.mu.Unlock()
		if k.peers != nil {
			k.peers(len(r.TLS.PeerCertificates))
		}
		mux.ServeHTTP(w, r)
	}))
	k.EnableHTTP2 = true
	k.TLS = &tls.Config{ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS12}
	k.StartTLS()
	t.Cleanup(k.Close)
	return k
}

// last is what the kubelet was asked for last, and the protocol to go on in.
func (k *kubelet) last() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.seen) == 0 {
		return ""
	}
	return k.seen[len(k.seen)-1]
}

func options(w http.ResponseWriter, r *http.Request) *remotecommand.Options {
	opts, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
	}
	return opts
}

// ExecInContainer is part of remotecommand.Executor.
//
//nolint:revive // which takes so much
func (k *kubelet) ExecInContainer(_ context.Context, _, _, _ string, cmd []string, in io.Reader, out, errs io.WriteCloser, _ bool, sizes <-chan remotecommand.TerminalSize, _ time.Duration) error {
	switch cmd[0] {
	case "cat":
		_, err := io.Copy(out, in)
		return err
	case "both":
		fmt.Fprint(out, "to out")
		fmt.Fprint(errs, "to err")
	case "exit":
		code, err := strconv.Atoi(cmd[1])
		if err != nil {
			return err
		}
		return exec.CodeExitError{Err: errors.New("it exits"), Code: code}
	case "size":
		size := <-sizes
		fmt.Fprintf(out, "%dx%d", size.Width, size.Height)
	case "linger":
		fmt.Fprintln(out, "here")
		_, err := io.Copy(io.Discard, in)
		k.abandoned <- struct{}{}
		return err
	default:
		return fmt.Errorf("%s: no such command", cmd[0])
	}
	return nil
}

// AttachContainer is part of remotecommand.Attacher.
//
//nolint:revive // which takes so much
func (*kubelet) AttachContainer(_ context.Context, pod, _, container string, _ io.Reader, out, _ io.WriteCloser, _ bool, _ <-chan remotecommand.TerminalSize) error {
	fmt.Fprintf(out, "attached to %s in %s", container, pod)
	return nil
}

// PortForward is part of portforward.PortForwarder. It answers one line.
func (*kubelet) PortForward(_ context.Context, pod, _ string, port int32, stream io.ReadWriteCloser) error {
	defer func() { _ = stream.Close() }()
	if port == 1 {
		return errors.New("nobody listens")
	}
	line, err := bufio.NewReader(stream).ReadString('\n')
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(stream, "%s:%d says %s", pod, port, line)
	return err
}

// A cluster is a server with one node, whose kubelet is in this process.
type cluster struct {
	kubernetes.Interface

	*registrytest.Server
	t       *testing.T
	config  *rest.Config
	kubelet *kubelet
}

func start(t *testing.T, opts ...registrytest.Option) *cluster {
	t.Helper()
	k := newKubelet(t) // which must outlive the server, whose connections it waits for
	s := registrytest.Run(t, append(opts, registrytest.TLS)...)
	c := &cluster{Server: s, t: t, config: s.Client(registrytest.Admin), kubelet: k}
	var err error
	if c.Interface, err = kubernetes.NewForConfig(c.config); err != nil {
		t.Fatal(err)
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	if _, err := c.CoreV1().ServiceAccounts("default").Create(t.Context(), account, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.node("n", k.Listener.Addr().(*net.TCPAddr).Port)
	return c
}

// node makes a node whose kubelet is at a port of this machine.
func (c *cluster) node(name string, port int) *corev1.Node {
	c.t.Helper()
	node, err := c.CoreV1().Nodes().Create(c.t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	node.Status.Addresses = []corev1.NodeAddress{
		{Type: corev1.NodeExternalIP, Address: "192.0.2.1"}, // comes after the other, whatever their order here
		{Type: corev1.NodeInternalIP, Address: "127.0.0.1"},
	}
	node.Status.DaemonEndpoints.KubeletEndpoint.Port = int32(port)
	if node, err = c.CoreV1().Nodes().UpdateStatus(c.t.Context(), node, metav1.UpdateOptions{}); err != nil {
		c.t.Fatal(err)
	}
	return node
}

// pod makes a pod with the given containers on node n, unless change says
// otherwise.
func (c *cluster) pod(name string, change func(*corev1.Pod), containers ...string) *corev1.Pod {
	c.t.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{NodeName: "n"}}
	for _, name := range containers {
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: name, Image: "i"})
	}
	pod.Status.Phase = corev1.PodRunning
	if change != nil {
		change(pod)
	}
	made, err := c.CoreV1().Pods("default").Create(c.t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	made.Status = pod.Status
	if made, err = c.CoreV1().Pods("default").UpdateStatus(c.t.Context(), made, metav1.UpdateOptions{}); err != nil {
		c.t.Fatal(err)
	}
	return made
}

// message is what an error tells a client, with its code and reason.
func message(err error) string {
	status, ok := err.(apierrors.APIStatus)
	if !ok {
		return fmt.Sprint(err)
	}
	s := status.Status()
	return fmt.Sprint(s.Code, " ", s.Reason, ": ", s.Message)
}
