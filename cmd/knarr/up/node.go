package up

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/knarr-dev/knarr/cmd/knarr/pki"
)

// nodeRange has the addresses of further nodes on this machine, the first of
// which is the machine's own on the bridge between them.
const nodeRange = "172.31.253.0/24"

// A member is a further node on this machine: a network and a mount namespace
// of its own with a containerd, a kubelet and a service proxy in them.
type member struct {
	Name    string `json:"name"`
	Address string `json:"address"`
	Stopped bool   `json:"stopped,omitempty"`

	cluster *dir
}

// nodeName is what a node may be called. Its files' paths and interfaces are
// named by it, so it is short.
var nodeName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,18}[a-z0-9])?$`)

const memberFile = "node.json"

func (m *member) file(name ...string) string {
	return m.cluster.file(append([]string{"nodes", m.Name}, name...)...)
}

// id tells the node from all others on this machine, in the names of
// interfaces and pins.
func (m *member) id() string {
	sum := sha256.Sum256([]byte(m.cluster.path + "\x00" + m.Name))
	return "kn" + hex.EncodeToString(sum[:4])
}

// cgroup is the group below which all of the node's are.
func (m *member) cgroup() string { return filepath.Join(m.cluster.cgroupRoot(), "nodes", m.Name) }

// members lists the further nodes of a cluster, by name.
func (d *dir) members() (list []*member, err error) {
	entries, err := os.ReadDir(d.file("nodes"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	for _, e := range entries {
		m := &member{cluster: d}
		ok, err := d.read(filepath.Join("nodes", e.Name(), memberFile), m)
		if err != nil {
			return nil, err
		}
		if ok {
			list = append(list, m)
		}
	}
	return list, nil
}

// member finds a further node by its name.
func (d *dir) member(name string) (*member, error) {
	list, err := d.members()
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(list, func(m *member) bool { return m.Name == name })
	if i < 0 {
		return nil, fmt.Errorf("there is no node %s that `knarr node add` has made: `knarr node list` lists them", name)
	}
	return list[i], nil
}

// newMember chooses an address for a node and notes the node.
func (d *dir) newMember(name string, plan *Options) (*member, error) {
	list, err := d.members()
	if err != nil {
		return nil, err
	}
	if name == "" {
		name = freeName(list)
	}
	switch {
	case !nodeName.MatchString(name):
		return nil, fmt.Errorf("%q is no name for a node here: at most 20 lower case letters, digits and dashes", name)
	case name == plan.Node || slices.ContainsFunc(list, func(m *member) bool { return m.Name == name }):
		return nil, fmt.Errorf("there is a node %s already", name)
	}
	address, err := freeAddress(list)
	if err != nil {
		return nil, err
	}
	m := &member{Name: name, Address: address, cluster: d}
	if err := os.MkdirAll(m.file(), 0o700); err != nil {
		return nil, fmt.Errorf("make the node's directory: %w", err)
	}
	return m, m.write()
}

// write notes the node.
func (m *member) write() error { return m.cluster.write(filepath.Join("nodes", m.Name, memberFile), m) }

// freeName is the first of node2, node3 and so on that no node has.
func freeName(list []*member) string {
	for n := 2; ; n++ {
		name := fmt.Sprintf("node%d", n)
		if !slices.ContainsFunc(list, func(m *member) bool { return m.Name == name }) {
			return name
		}
	}
}

// freeAddress is the first address behind the machine's own that no node has.
func freeAddress(list []*member) (string, error) {
	all := netip.MustParsePrefix(nodeRange)
	for a := all.Addr().Next().Next(); all.Contains(a.Next()); a = a.Next() {
		if !slices.ContainsFunc(list, func(m *member) bool { return m.Address == a.String() }) {
			return a.String(), nil
		}
	}
	return "", fmt.Errorf("no address of %s is free for another node", nodeRange)
}

// credentials makes what the node and its proxy are known by.
func (m *member) credentials(plan *Options) error {
	host, err := plan.address()
	if err != nil {
		return err
	}
	server := fmt.Sprintf("https://%s", netip.AddrPortFrom(netip.MustParseAddr(host), uint16(plan.SecurePort)))
	keys := &pki.Dir{Path: m.cluster.file("pki"), Now: time.Now}
	return keys.Node(pki.Node{Name: m.Name, IPs: []string{m.Address}, Server: server, Dir: m.file("pki")})
}

// client is the administrator's.
func (d *dir) client() (kubernetes.Interface, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", d.file(adminFile))
	if err != nil {
		return nil, fmt.Errorf("reach the API server: %w", err)
	}
	return kubernetes.NewForConfig(cfg)
}

// add makes a node and waits until it is ready.
func (d *dir) add(ctx context.Context, name string) (*member, error) {
	plan, err := d.runningPlan()
	if err != nil {
		return nil, err
	}
	m, err := d.newMember(name, plan)
	if err != nil {
		return nil, err
	}
	if err = m.start(plan); err == nil {
		err = m.awaitReady(ctx)
	}
	if err == nil {
		err = d.spread(ctx, plan)
	}
	if err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopPatience)
		defer cancel()
		return nil, errors.Join(fmt.Errorf("add node %s: %w", m.Name, err), d.remove(ctx, m))
	}
	return m, nil
}

// spread has DNS run on more than one node where there are more.
func (d *dir) spread(ctx context.Context, plan *Options) error {
	client, err := d.client()
	if err != nil {
		return err
	}
	return d.applyAddons(ctx, client, plan)
}

// readyPatience is how long a new node may take to be ready.
const readyPatience = time.Minute

func (m *member) awaitReady(ctx context.Context) error {
	client, err := m.cluster.client()
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, readyPatience)
	defer cancel()
	if err := untilReady(limited, client, m.Name); err != nil {
		return fmt.Errorf("it is not ready within %v (its log: %s): %w", readyPatience, m.file(logFile), err)
	}
	return nil
}

// remove ends a node, takes it out of the cluster and leaves nothing of it.
func (d *dir) remove(ctx context.Context, m *member) error {
	errs := []error{m.end(ctx)}
	if pid, err := d.holder(); err == nil && pid != 0 {
		client, err := d.client()
		if err == nil {
			err = client.CoreV1().Nodes().Delete(ctx, m.Name, metav1.DeleteOptions{})
		}
		if err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("delete node %s: %w", m.Name, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return os.RemoveAll(m.file())
}

// runningPlan is what the cluster was made with. It is an error if it does not run.
func (d *dir) runningPlan() (*Options, error) {
	plan, err := d.plan()
	if err != nil {
		return nil, err
	}
	pid, err := d.holder()
	if err != nil {
		return nil, err
	}
	if plan == nil || pid == 0 {
		return nil, fmt.Errorf("the cluster in %s does not run: `knarr up` starts it", d.path)
	}
	return &plan.Options, nil
}

// grow adds nodes until there are as many as are wanted, the machine's own
// among them.
func (d *dir) grow(ctx context.Context, want int, s *steps) error {
	list, err := d.members()
	if err != nil {
		return err
	}
	for n := len(list) + 1; n < want; n++ {
		m, err := d.add(ctx, "")
		if err != nil {
			return err
		}
		s.did("Node " + m.Name + " ready")
	}
	return nil
}

// startMembers starts the nodes that were not stopped, as after a restart of
// the machine. Those that run go on.
func (d *dir) startMembers(plan *Options) error {
	list, err := d.members()
	var errs []error
	for _, m := range list {
		if !m.Stopped {
			if err := m.start(plan); err != nil {
				errs = append(errs, fmt.Errorf("start node %s: %w", m.Name, err))
			}
		}
	}
	return errors.Join(append(errs, err)...)
}

// endMembers ends all further nodes, and the network between them.
func (d *dir) endMembers(ctx context.Context) error {
	list, err := d.members()
	errs := []error{err}
	for _, m := range list {
		errs = append(errs, m.end(ctx))
	}
	return errors.Join(append(errs, d.removeNodeNetwork())...)
}

// bridgeName is the interface that the nodes of a cluster hang on.
func (d *dir) bridgeName() string {
	if d.path == defaultDir {
		return "knarr-nodes"
	}
	sum := sha256.Sum256([]byte(d.path))
	return "kb" + hex.EncodeToString(sum[:4])
}
