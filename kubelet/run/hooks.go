package run

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"

	"github.com/knarr-dev/knarr/kubelet"
	"github.com/knarr-dev/knarr/kubelet/admit"
	"github.com/knarr-dev/knarr/kubelet/cgroup"
	"github.com/knarr-dev/knarr/kubelet/cri"
	"github.com/knarr-dev/knarr/kubelet/env"
	"github.com/knarr-dev/knarr/kubelet/image"
	"github.com/knarr-dev/knarr/kubelet/lifecycle"
	"github.com/knarr-dev/knarr/kubelet/network"
	"github.com/knarr-dev/knarr/kubelet/object"
	"github.com/knarr-dev/knarr/kubelet/probe"
	"github.com/knarr-dev/knarr/kubelet/security"
	"github.com/knarr-dev/knarr/kubelet/volume"
)

// Settings are what the pods of a node have in common.
type Settings struct {
	CgroupRoot string // below which pods' groups are; / where empty
	PidsLimit  int64  // of each pod; none where zero

	ClusterDNS    []string
	ClusterDomain string
	ResolvConf    string // the host's

	ImageGC image.Policy

	// AllowedSysctls are those that pods may set besides the safe ones; one that
	// ends in * stands for all that begin so.
	AllowedSysctls []string
	SeccompDir     string // of the profiles that pods name; seccomp in Root where empty
	SeccompDefault bool   // as security.Policy

	// Services are those of a namespace, with an error while they are not known;
	// nil has them watched.
	Services func(namespace string) ([]*corev1.Service, error)
}

// Hooks lists who takes part in a pod's life, in order. Their cleanups run in
// the opposite order. What they keep going ends with ctx.
func Hooks(ctx context.Context, c Config, s Settings, rt cri.Runtime, client kubernetes.Interface) ([]kubelet.Hook, error) {
	groups, err := cgroup.New(cmp.Or(s.CgroupRoot, "/"))
	if err != nil {
		return nil, err
	}
	groups.PidsLimit, groups.Memory = s.PidsLimit, memory
	if s.Services == nil {
		s.Services = services(ctx, client)
	}
	allocatable := func() corev1.ResourceList {
		if c.Node == nil || c.Node() == nil {
			return nil
		}
		return c.Node().Status.Allocatable
	}
	objects := object.New(ctx, client, c.Pods.Refresh)
	images := &image.Keeper{
		Puller: rt, Secrets: objects, Tell: c.Tell,
		NodeConfig: filepath.Join(c.Root, "config.json"), Dir: filepath.Join(c.Root, "image-notes"),
	}
	go images.Run(ctx, rt, s.ImageGC)
	volumes := &volume.Mounter{
		Root: c.Root, Objects: objects, Allocatable: allocatable, Refresh: c.Pods.Refresh, Tell: c.Tell,
		Claim: claims(client),
		Token: func(ctx context.Context, namespace, account string, t *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
			return client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, account, t, metav1.CreateOptions{})
		},
	}
	vars := &env.Maker{Objects: objects, Services: s.Services, Allocatable: allocatable, Volume: volumes.Path}
	names := &network.Namer{Servers: s.ClusterDNS, Domain: s.ClusterDomain, ResolvConf: s.ResolvConf, Root: c.Root, Tell: c.Tell}
	rights := security.Policy{SeccompDir: cmp.Or(s.SeccompDir, filepath.Join(c.Root, "seccomp")), SeccompDefault: s.SeccompDefault}
	probes := &probe.Prober{Exec: rt.Exec, Tell: c.Tell, Report: c.Pods.Probed}
	handlers := &lifecycle.Runner{Exec: rt.Exec, Request: probe.Request, Client: probe.Client, Tell: c.Tell}
	return []kubelet.Hook{
		// A pod that is turned down must leave no trace, so this is first.
		admit.Gate{Node: c.Node, Sysctls: s.AllowedSysctls}.Hook(),
		runtimeClass(client),
		// The group is there before anything that could be in it, and goes when all of that is gone.
		groups.Hook(),
		names.Hook(),
		// The longest of what comes before a start, and what the next one needs to know: whom the image runs as.
		images.Hook(),
		rights.Hook(),
		// It has what the two after it refer to, until they have cleaned up.
		objects.Hook(),
		vars.Hook(),
		// After the variables, which may stand in the paths of mounts.
		volumes.Hook(),
		// Both are for a container that runs: the first is told of it when the second is done.
		probes.Hook(),
		handlers.Hook(),
	}, nil
}

// memory is how much the host has.
func memory() int64 {
	var s unix.Sysinfo_t
	if unix.Sysinfo(&s) != nil {
		return 0
	}
	return int64(s.Totalram) * int64(s.Unit)
}

var errServices = errors.New("services have not yet been read at least once, cannot construct envvars")

// services watches all services.
func services(ctx context.Context, client kubernetes.Interface) func(string) ([]*corev1.Service, error) {
	f := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(func(o any) (any, error) {
		if s, ok := o.(*corev1.Service); ok {
			s.ManagedFields, s.Annotations, s.Labels = nil, nil, nil
		}
		return o, nil
	}))
	all := f.Core().V1().Services()
	synced := all.Informer().HasSynced
	f.Start(ctx.Done())
	return func(namespace string) ([]*corev1.Service, error) {
		if !synced() {
			return nil, errServices
		}
		return all.Lister().Services(namespace).List(labels.Everything())
	}
}

// claims finds the volume that is bound to a claim.
func claims(client kubernetes.Interface) func(ctx context.Context, namespace, name string) (*corev1.PersistentVolume, error) {
	return func(ctx context.Context, namespace, name string) (*corev1.PersistentVolume, error) {
		claim, err := client.CoreV1().PersistentVolumeClaims(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		if claim.Status.Phase != corev1.ClaimBound || claim.Spec.VolumeName == "" {
			return nil, fmt.Errorf("PVC %s/%s is not bound", namespace, name)
		}
		pv, err := client.CoreV1().PersistentVolumes().Get(ctx, claim.Spec.VolumeName, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		if pv.Spec.ClaimRef == nil || pv.Spec.ClaimRef.UID != claim.UID {
			return nil, fmt.Errorf("PV %s is bound to another claim than %s/%s", pv.Name, namespace, name)
		}
		return pv, nil
	}
}

// runtimeClass finds out which handler of the runtime a pod asks for.
func runtimeClass(client kubernetes.Interface) kubelet.Hook {
	return kubelet.Hook{Name: "runtimeclass", Prepare: func(ctx context.Context, s *kubelet.Sandbox) error {
		name := s.Pod.Spec.RuntimeClassName
		if name == nil || *name == "" {
			return nil
		}
		class, err := client.NodeV1().RuntimeClasses().Get(ctx, *name, metav1.GetOptions{})
		if err != nil {
			return &kubelet.Failure{Reason: "FailedCreatePodSandBox", Message: "Failed to create pod sandbox: " + err.Error(), Err: err}
		}
		s.Handler = class.Handler
		return nil
	}}
}
