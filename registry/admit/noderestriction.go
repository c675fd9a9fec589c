package admit

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-dev/knarr/registry/authz"
	"github.com/knarr-dev/knarr/registry/needs"
)

// nodeRestriction keeps nodes from changing what is not theirs, as far as
// authorization, which does not see objects, lets them.
func nodeRestriction(cfg Config) Plugin {
	rules := nodeRules(cfg)
	return Plugin{Name: "NodeRestriction", Mutate: func(ctx context.Context, w World, r *Request) error {
		node, ok := authz.NodeName(&r.User)
		switch {
		case !ok:
			return nil
		case node == "":
			return forbid(r, "could not determine node from user %q", r.User.Name)
		}
		if rule := rules[r.Kind.GroupResource().String()]; rule != nil {
			return rule(ctx, w, r, node)
		}
		return nil
	}}
}

// A nodeRule is what a node may do to one kind.
type nodeRule func(ctx context.Context, w World, r *Request, node string) error

func nodeRules(cfg Config) map[string]nodeRule {
	return map[string]nodeRule{
		"pods":                           nodePod,
		"nodes":                          nodeNode,
		"persistentvolumeclaims":         nodeClaim,
		"serviceaccounts":                tokenRule{cfg}.check,
		"leases.coordination.k8s.io":     nodeLease,
		"csinodes.storage.k8s.io":        nodeCSI,
		"resourceslices.resource.k8s.io": nodeSlice,
		"certificatesigningrequests.certificates.k8s.io": nodeCSR,
	}
}

func nodePod(ctx context.Context, w World, r *Request, node string) error {
	switch r.Sub {
	case "":
		switch r.Operation {
		case Create:
			return nodeMirror(ctx, w, r, node)
		case Delete:
			return onNode(r, r.Old, node, "node %q can only delete pods with spec.nodeName set to itself")
		}
		return forbid(r, "unexpected operation %q, node %q can only create and delete mirror pods", r.Operation, node)
	case "status":
		if r.Operation != Update {
			return forbid(r, "unexpected operation %q", r.Operation)
		}
		return nodePodStatus(r, node)
	case "eviction":
		if r.Operation != Create {
			return forbid(r, "unexpected operation %s", r.Operation)
		}
		pod, err := w.Lookup(ctx, schema.GroupResource{Resource: "pods"}, r.Namespace, r.Name)
		if err != nil {
			return err
		}
		return onNode(r, pod, node, "node %s can only evict pods with spec.nodeName set to itself")
	}
	return forbid(r, "unexpected pod subresource %q, only 'status' and 'eviction' are allowed", r.Sub)
}

// onNode refuses to touch a pod that is on another node.
func onNode(r *Request, obj any, node, text string) error {
	if pod, ok := obj.(*corev1.Pod); !ok || pod.Spec.NodeName != node {
		return forbid(r, text, node)
	}
	return nil
}

// nodeMirror lets a node create a pod that stands for one that it runs by
// itself, belongs to it and gets it nothing.
func nodeMirror(ctx context.Context, w World, r *Request, node string) error {
	pod := r.Object.(*corev1.Pod)
	if !mirror(pod) {
		return forbid(r, "pod does not have %q annotation, node %q can only create mirror pods", corev1.MirrorPodAnnotationKey, node)
	}
	if pod.Spec.NodeName != node {
		return forbid(r, "node %q can only create pods with spec.nodeName set to itself", node)
	}
	if err := nodeOwner(ctx, w, r, pod, node); err != nil {
		return err
	}
	if what := refersTo(pod); what != "" {
		return forbid(r, "node %q can not create pods that reference %s", node, what)
	}
	return nil
}

// nodeOwner checks that a pod is owned by its node and nothing else.
func nodeOwner(ctx context.Context, w World, r *Request, pod *corev1.Pod, node string) error {
	if len(pod.OwnerReferences) > 1 {
		return forbid(r, "node %q can only create pods with a single owner reference set to itself", node)
	}
	if len(pod.OwnerReferences) == 0 {
		return forbid(r, "node %q can only create pods with an owner reference set to itself", node)
	}
	owner := pod.OwnerReferences[0]
	switch {
	case owner.APIVersion != "v1" || owner.Kind != "Node" || owner.Name != node:
		return forbid(r, "node %q can only create pods with an owner reference set to itself", node)
	case owner.Controller == nil || !*owner.Controller:
		return forbid(r, "node %q can only create pods with a controller owner reference set to itself", node)
	case owner.BlockOwnerDeletion != nil && *owner.BlockOwnerDeletion:
		return forbid(r, "node %q must not set blockOwnerDeletion on an owner reference", node)
	}
	self, err := w.Lookup(ctx, schema.GroupResource{Resource: "nodes"}, "", node)
	switch {
	case apierrors.IsNotFound(err):
		return err
	case err != nil:
		return forbid(r, "error looking up node %s to verify uid: %w", node, err)
	case self.GetUID() != owner.UID:
		return forbid(r, "node %s UID mismatch: expected %s got %s", node, owner.UID, self.GetUID())
	}
	return nil
}

// refersTo names a kind of objects that a pod refers to, "" for none.
func refersTo(pod *corev1.Pod) string {
	refs := needs.OfPod(pod)
	for _, kind := range []string{needs.ServiceAccount, needs.Secret, needs.ConfigMap} {
		if slices.ContainsFunc(refs, func(n needs.Ref) bool { return n.Kind == kind }) {
			return kind
		}
	}
	if len(pod.Spec.ResourceClaims) > 0 {
		return needs.ResourceClaim
	}
	for i := range pod.Spec.Volumes {
		if what := volumeRefersTo(&pod.Spec.Volumes[i].VolumeSource); what != "" {
			return what
		}
	}
	return ""
}

func volumeRefersTo(v *corev1.VolumeSource) string {
	switch {
	case v.CSI != nil:
		return "csidrivers (via CSI volumes)"
	case v.Glusterfs != nil:
		return "endpoints (via glusterFS volumes)"
	case v.PersistentVolumeClaim != nil:
		return "persistentvolumeclaims"
	case v.Ephemeral != nil:
		return "persistentvolumeclaims (via ephemeral volumes)"
	case v.Projected != nil:
		for _, s := range v.Projected.Sources {
			switch {
			case s.ServiceAccountToken != nil:
				return "serviceaccounts (via projected volumes)"
			case s.ClusterTrustBundle != nil:
				return "clustertrustbundles"
			case s.PodCertificate != nil:
				return "podcertificates"
			}
		}
	}
	return ""
}

func nodePodStatus(r *Request, node string) error {
	old, pod := r.Old.(*corev1.Pod), r.Object.(*corev1.Pod)
	switch {
	case old.Spec.NodeName != node:
		return forbid(r, "node %q can only update pod status for pods with spec.nodeName set to itself", node)
	case !maps.Equal(old.Labels, pod.Labels):
		return forbid(r, "node %q cannot update labels through pod status", node)
	case !apiequality.Semantic.DeepEqual(old.Status.ResourceClaimStatuses, pod.Status.ResourceClaimStatuses):
		return forbid(r, "node %q cannot update resource claim statues", node)
	case !apiequality.Semantic.DeepEqual(old.Status.ExtendedResourceClaimStatus, pod.Status.ExtendedResourceClaimStatus):
		return forbid(r, "node %q cannot update extended resource claim status", node)
	}
	return nil
}

func nodeClaim(_ context.Context, _ World, r *Request, node string) error {
	if r.Sub != "status" {
		return forbid(r, "may only update PVC status")
	}
	if r.Operation != Update {
		return forbid(r, "unexpected operation %q", r.Operation)
	}
	// What a node may tell of a claim is how large it is and how it gets on.
	bare := func(obj any) *corev1.PersistentVolumeClaim {
		pvc := obj.(*corev1.PersistentVolumeClaim).DeepCopy()
		pvc.ResourceVersion, pvc.ManagedFields = "", nil
		pvc.Status.Capacity, pvc.Status.Conditions = nil, nil
		pvc.Status.AllocatedResources, pvc.Status.AllocatedResourceStatuses = nil, nil
		pvc.TypeMeta.Kind, pvc.TypeMeta.APIVersion = "", ""
		return pvc
	}
	if !apiequality.Semantic.DeepEqual(bare(r.Old), bare(r.Object)) {
		return forbid(r, "node %q is not allowed to update fields other than status.quantity and status.conditions", node)
	}
	return nil
}

func nodeNode(_ context.Context, _ World, r *Request, self string) error {
	if name := r.name(); name != self {
		return forbid(r, "node %q is not allowed to modify node %q", self, name)
	}
	node, _ := r.Object.(*corev1.Node)
	switch r.Operation {
	case Create:
		if node.Spec.ConfigSource != nil { //nolint:staticcheck // clients may still send it
			return forbid(r, "node %q is not allowed to create pods with a non-nil configSource", self)
		}
		if bad := restricted(node.Labels, nil); len(bad) > 0 {
			return forbid(r, "node %q is not allowed to set the following labels: %s", self, strings.Join(bad, ", "))
		}
	case Update:
		old := r.Old.(*corev1.Node)
		switch {
		case node.Spec.ConfigSource != nil && !apiequality.Semantic.DeepEqual(node.Spec.ConfigSource, old.Spec.ConfigSource): //nolint:staticcheck // as above
			return forbid(r, "node %q is not allowed to update configSource to a new non-nil configSource", self)
		case !apiequality.Semantic.DeepEqual(node.Spec.Taints, old.Spec.Taints):
			return forbid(r, "node %q is not allowed to modify taints", self)
		case !apiequality.Semantic.DeepEqual(node.OwnerReferences, old.OwnerReferences):
			return forbid(r, "node %q is not allowed to modify ownerReferences", self)
		}
		if bad := restricted(node.Labels, old.Labels); len(bad) > 0 {
			return forbid(r, "is not allowed to modify labels: %s", strings.Join(bad, ", "))
		}
	}
	return nil
}

// Labels that a node may set on itself though they are the cluster's.
var (
	nodeLabels = []string{
		corev1.LabelHostname, corev1.LabelTopologyZone, corev1.LabelTopologyRegion,
		corev1.LabelFailureDomainBetaZone, corev1.LabelFailureDomainBetaRegion,
		corev1.LabelInstanceType, corev1.LabelInstanceTypeStable, corev1.LabelOSStable, corev1.LabelArchStable,
		"beta.kubernetes.io/os", "beta.kubernetes.io/arch",
	}
	nodeLabelDomains    = []string{corev1.LabelNamespaceSuffixKubelet, corev1.LabelNamespaceSuffixNode}
	clusterLabelDomains = []string{"kubernetes.io", "k8s.io"}
)

// restricted are the labels that a node has changed and may not, by which it
// could draw pods to itself.
func restricted(labels, old map[string]string) (bad []string) {
	for key := range maps.Keys(merged(labels, old)) {
		a, inA := labels[key]
		b, inB := old[key]
		if inA == inB && a == b {
			continue
		}
		domain, _, ok := strings.Cut(key, "/")
		if !ok {
			domain = ""
		}
		own := slices.Contains(nodeLabels, key) || within(domain, nodeLabelDomains)
		if within(domain, []string{corev1.LabelNamespaceNodeRestriction}) || within(domain, clusterLabelDomains) && !own {
			bad = append(bad, key)
		}
	}
	slices.Sort(bad)
	return bad
}

func merged(a, b map[string]string) map[string]string {
	all := maps.Clone(a)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, b)
	return all
}

// within reports whether a domain is one of those given, or below one.
func within(domain string, of []string) bool {
	return slices.ContainsFunc(of, func(d string) bool { return domain == d || strings.HasSuffix(domain, "."+d) })
}

func nodeLease(_ context.Context, _ World, r *Request, node string) error {
	if r.Namespace != corev1.NamespaceNodeLease {
		return forbid(r, "can only access leases in the %q system namespace", corev1.NamespaceNodeLease)
	}
	if r.name() != node {
		return forbid(r, "can only access node lease with the same name as the requesting node")
	}
	return nil
}

func nodeCSI(_ context.Context, _ World, r *Request, node string) error {
	if r.name() != node {
		return forbid(r, "can only access CSINode with the same name as the requesting node")
	}
	return nil
}

func nodeSlice(_ context.Context, _ World, r *Request, node string) error {
	obj, verb := r.Object, "create"
	if r.Operation == Delete {
		obj, verb = r.Old, "delete"
	}
	if r.Operation != Create && r.Operation != Delete {
		return nil
	}
	if slice := obj.(*resourcev1.ResourceSlice); slice.Spec.NodeName == nil || *slice.Spec.NodeName != node {
		return forbid(r, "can only %s ResourceSlice with the same NodeName as the requesting node", verb)
	}
	return nil
}

func nodeCSR(_ context.Context, _ World, r *Request, node string) error {
	if r.Operation != Create || r.Sub != "" {
		return nil
	}
	csr := r.Object.(*certificatesv1.CertificateSigningRequest)
	if s := csr.Spec.SignerName; s != certificatesv1.KubeletServingSignerName && s != certificatesv1.KubeAPIServerClientKubeletSignerName {
		return nil
	}
	request, err := parseCSR(csr.Spec.Request)
	if err != nil {
		return forbid(r, "unable to parse csr: %w", err)
	}
	if request.Subject.CommonName != "system:node:"+node {
		return forbid(r, "can only create a node CSR with CN=system:node:%s", node)
	}
	return nil
}

// parseCSR reads the request for a certificate in PEM.
func parseCSR(text []byte) (*x509.CertificateRequest, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, errors.New("PEM block type must be CERTIFICATE REQUEST")
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read request: %w", err)
	}
	return request, nil
}
