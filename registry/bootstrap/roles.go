package bootstrap

import (
	_ "embed"
	"maps"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/component-helpers/auth/rbac/validation"

	"github.com/knarr-dev/knarr/apis"
)

// server is in whose name the server owns fields.
const server = "kube-apiserver"

// What marks roles and bindings that are brought up to date at each start.
const (
	autoUpdate = rbacv1.AutoUpdateAnnotationKey
	bootMark   = "kubernetes.io/bootstrapping"
	gathered   = "rbac.authorization.k8s.io/"
)

// rolesText is the roles, one after the other:
//
//	name > label by which others gather it < label by which it gathers others
//	[tab] verbs group,group:resource,resource name,name
//	[tab] verbs /path,/path
//
// A role of a namespace has that before its name. Verbs are the letters of
// the word CGLWUPDX below, * for all, and others in full, each after a +.
//
//go:embed roles.txt
var rolesText string

// verbOf is what the letters of rolesText stand for.
var verbOf = map[rune]string{
	'C': "create", 'G': "get", 'L': "list", 'W': "watch", 'U': "update", 'P': "patch", 'D': "delete", 'X': "deletecollection", '*': "*",
}

// NodeRules are the rules by which nodes may do what does not depend on their pods.
func NodeRules() []rbacv1.PolicyRule {
	for _, w := range roles() {
		if r, ok := w.obj.(*rbacv1.ClusterRole); ok && r.Name == "system:node" {
			return r.Rules
		}
	}
	return nil
}

func roles() (wishes []wish) {
	for text := range strings.SplitSeq(strings.TrimSpace(rolesText), "\n") {
		if rule, ok := strings.CutPrefix(text, "\t"); ok {
			last := wishes[len(wishes)-1].obj
			switch r := last.(type) {
			case *rbacv1.ClusterRole:
				r.Rules = append(r.Rules, parseRule(rule))
			case *rbacv1.Role:
				r.Rules = append(r.Rules, parseRule(rule))
			}
			continue
		}
		wishes = append(wishes, parseRole(text))
	}
	return wishes
}

func parseRole(text string) wish {
	text, gathers, _ := strings.Cut(text, " < ")
	text, label, labelled := strings.Cut(text, " > ")
	meta := booted("", text)
	if labelled {
		meta.Labels[gathered+label] = "true"
	}
	if ns, name, ok := strings.Cut(text, " "); ok {
		meta.Namespace, meta.Name = ns, name
		r := &rbacv1.Role{ObjectMeta: meta}
		return wish{gr: rbac("roles"), obj: r, manager: server, amend: func(have apis.Object) bool { return amendRole(have, r) }}
	}
	r := &rbacv1.ClusterRole{ObjectMeta: meta}
	if gathers != "" {
		r.AggregationRule = &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{
			{MatchLabels: map[string]string{gathered + gathers: "true"}},
		}}
	}
	return wish{gr: rbac("clusterroles"), obj: r, manager: server, amend: func(have apis.Object) bool { return amendRole(have, r) }}
}

func rbac(plural string) schema.GroupResource {
	return schema.GroupResource{Group: rbacv1.GroupName, Resource: plural}
}

// booted is the metadata of what is brought up to date.
func booted(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: namespace, Name: name,
		Labels: map[string]string{bootMark: "rbac-defaults"}, Annotations: map[string]string{autoUpdate: "true"},
	}
}

func parseRule(text string) (r rbacv1.PolicyRule) {
	parts := strings.Fields(text)
	named := strings.Split(parts[0], "+")
	for _, letter := range named[0] {
		r.Verbs = append(r.Verbs, verbOf[letter])
	}
	r.Verbs = append(r.Verbs, named[1:]...)
	slices.Sort(r.Verbs)
	groups, resources, ok := strings.Cut(parts[1], ":")
	if !ok {
		r.NonResourceURLs = strings.Split(parts[1], ",")
		return r
	}
	r.APIGroups = strings.Split(groups, ",")
	if i := slices.Index(r.APIGroups, "core"); i >= 0 {
		r.APIGroups[i] = ""
	}
	r.Resources = strings.Split(resources, ",")
	if len(parts) > 2 {
		r.ResourceNames = strings.Split(parts[2], ",")
	}
	return r
}

// keepOut reports whether somebody wants an object left as it is.
func keepOut(have apis.Object) bool { return have.GetAnnotations()[autoUpdate] == "false" }

// amendMeta adds labels and annotations that are missing.
func amendMeta(have, want apis.Object) (amended bool) {
	add := func(has, all map[string]string) map[string]string {
		merged := maps.Clone(all)
		maps.Copy(merged, has)
		amended = amended || len(merged) != len(has)
		return merged
	}
	have.SetLabels(add(have.GetLabels(), want.GetLabels()))
	have.SetAnnotations(add(have.GetAnnotations(), want.GetAnnotations()))
	return amended
}

// amendRole adds what a role lacks. More than it should have it may.
func amendRole(have, want apis.Object) bool {
	if keepOut(have) {
		return false
	}
	amended := amendMeta(have, want)
	switch want := want.(type) {
	case *rbacv1.Role:
		role := have.(*rbacv1.Role)
		return amendRules(&role.Rules, want.Rules) || amended
	case *rbacv1.ClusterRole:
		role := have.(*rbacv1.ClusterRole)
		if want.AggregationRule == nil {
			return amendRules(&role.Rules, want.Rules) || amended
		}
		if role.AggregationRule == nil {
			role.AggregationRule = &rbacv1.AggregationRule{}
		}
		for _, s := range want.AggregationRule.ClusterRoleSelectors {
			same := func(o metav1.LabelSelector) bool { return apiequality.Semantic.DeepEqual(o, s) }
			if !slices.ContainsFunc(role.AggregationRule.ClusterRoleSelectors, same) {
				role.AggregationRule.ClusterRoleSelectors = append(role.AggregationRule.ClusterRoleSelectors, s)
				amended = true
			}
		}
	}
	return amended
}

func amendRules(rules *[]rbacv1.PolicyRule, want []rbacv1.PolicyRule) bool {
	ok, missing := validation.Covers(*rules, want)
	if !ok {
		*rules = append(*rules, missing...)
	}
	return !ok
}

// held are the bindings of roles of the cluster to others than the service
// account that a controller's role is called after. A subject is a user
// unless it begins with a letter and a colon: g for a group, s for a service
// account in kube-system.
var held = []struct {
	role     string
	subjects []string
}{
	{"cluster-admin", []string{"g:system:masters"}},
	{"knarr:host-ports", []string{"system:kube-proxy"}}, // the stock proxy leaves host ports to a plugin, and needs no pods
	{"system:basic-user", []string{"g:system:authenticated"}},
	{"system:discovery", []string{"g:system:authenticated"}},
	{"system:kube-controller-manager", []string{"system:kube-controller-manager"}},
	{"system:kube-dns", []string{"s:kube-dns"}},
	{"system:kube-scheduler", []string{"system:kube-scheduler"}},
	{"system:monitoring", []string{"g:system:monitoring"}},
	{"system:node", nil}, // nodes are authorized by their pods
	{"system:node-proxier", []string{"system:kube-proxy"}},
	{"system:public-info-viewer", []string{"g:system:authenticated", "g:system:unauthenticated"}},
	{"system:service-account-issuer-discovery", []string{"g:system:serviceaccounts"}},
	{"system:volume-scheduler", []string{"system:kube-scheduler"}},
}

// heldIn are the bindings of roles of namespaces, likewise.
var heldIn = []struct {
	namespace, name, role string
	subjects              []string
}{
	{"kube-public", controller + "bootstrap-signer", controller + "bootstrap-signer", []string{"s:bootstrap-signer"}},
	{
		"kube-system", "system::extension-apiserver-authentication-reader", "extension-apiserver-authentication-reader",
		[]string{"system:kube-controller-manager", "system:kube-scheduler"},
	},
	{
		"kube-system", "system::leader-locking-kube-controller-manager", "system::leader-locking-kube-controller-manager",
		[]string{"system:kube-controller-manager", "s:kube-controller-manager", "s:leader-election-controller"},
	},
	{
		"kube-system", "system::leader-locking-kube-scheduler", "system::leader-locking-kube-scheduler",
		[]string{"system:kube-scheduler", "s:kube-scheduler"},
	},
	{"kube-system", controller + "bootstrap-signer", controller + "bootstrap-signer", []string{"s:bootstrap-signer"}},
	{"kube-system", controller + "cloud-provider", controller + "cloud-provider", []string{"s:cloud-provider"}},
	{"kube-system", controller + "token-cleaner", controller + "token-cleaner", []string{"s:token-cleaner"}},
}

// controller is what the names of controllers' roles begin with.
const controller = "system:controller:"

func bindings() (wishes []wish) {
	for _, h := range held {
		wishes = append(wishes, clusterBinding(h.role, h.subjects))
	}
	for _, w := range roles() {
		if name, ok := strings.CutPrefix(w.obj.GetName(), controller); ok && w.obj.GetNamespace() == "" {
			wishes = append(wishes, clusterBinding(w.obj.GetName(), []string{"s:" + name}))
		}
	}
	for _, h := range heldIn {
		b := &rbacv1.RoleBinding{
			ObjectMeta: booted(h.namespace, h.name), Subjects: subjects(h.subjects),
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: h.role},
		}
		wishes = append(wishes, wish{gr: rbac("rolebindings"), obj: b, manager: server, amend: func(have apis.Object) bool {
			return amendBinding(have, b, &have.(*rbacv1.RoleBinding).Subjects, b.Subjects)
		}})
	}
	return wishes
}

func clusterBinding(role string, to []string) wish {
	b := &rbacv1.ClusterRoleBinding{
		ObjectMeta: booted("", role), Subjects: subjects(to),
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
	}
	return wish{gr: rbac("clusterrolebindings"), obj: b, manager: server, amend: func(have apis.Object) bool {
		return amendBinding(have, b, &have.(*rbacv1.ClusterRoleBinding).Subjects, b.Subjects)
	}}
}

func subjects(names []string) (all []rbacv1.Subject) {
	for _, name := range names {
		s := rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name}
		if group, ok := strings.CutPrefix(name, "g:"); ok {
			s.Kind, s.Name = rbacv1.GroupKind, group
		}
		if account, ok := strings.CutPrefix(name, "s:"); ok {
			s = rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: metav1.NamespaceSystem, Name: account}
		}
		all = append(all, s)
	}
	return all
}

// amendBinding adds subjects that a binding lacks.
func amendBinding(have, want apis.Object, has *[]rbacv1.Subject, subjects []rbacv1.Subject) bool {
	if keepOut(have) {
		return false
	}
	amended := amendMeta(have, want)
	for _, s := range subjects {
		if !slices.Contains(*has, s) {
			*has = append(*has, s)
			amended = true
		}
	}
	return amended
}
