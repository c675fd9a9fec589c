package expression

import (
	apiservercel "k8s.io/apiserver/pkg/cel"
)

// fields are the fields of a type by name.
type fields map[string]*apiservercel.DeclType

// object is the type called name. Its fields may be absent where their names
// end in a question mark.
func object(name string, of fields) *apiservercel.DeclType {
	all := map[string]*apiservercel.DeclField{}
	for name, t := range of {
		optional := name[len(name)-1] == '?'
		if optional {
			name = name[:len(name)-1]
		}
		all[name] = apiservercel.NewDeclField(name, t, !optional, nil, nil)
	}
	return apiservercel.NewObjectType("kubernetes."+name, all)
}

func list(of *apiservercel.DeclType) *apiservercel.DeclType {
	return apiservercel.NewListType(of, -1)
}

func dict(of *apiservercel.DeclType) *apiservercel.DeclType {
	return apiservercel.NewMapType(apiservercel.StringType, of, -1)
}

// requestType is an AdmissionRequest without its objects.
func requestType() *apiservercel.DeclType {
	text := apiservercel.StringType
	kind := object("GroupVersionKind", fields{"group": text, "version": text, "kind": text})
	resource := object("GroupVersionResource", fields{"group": text, "version": text, "resource": text})
	user := object("UserInfo", fields{"username?": text, "uid?": text, "groups?": list(text), "extra?": dict(list(text))})
	return object("AdmissionRequest", fields{
		"kind": kind, "resource": resource, "subResource?": text,
		"requestKind": kind, "requestResource": resource, "requestSubResource?": text,
		"name": text, "namespace?": text, "operation": text, "userInfo": user,
		"dryRun?": apiservercel.BoolType, "options?": apiservercel.DynType,
	})
}

// namespaceType is what of a namespace expressions may see.
func namespaceType() *apiservercel.DeclType {
	text, when := apiservercel.StringType, apiservercel.TimestampType
	condition := object("NamespaceCondition", fields{
		"status": text, "type": text, "lastTransitionTime": when, "message": text, "reason": text,
	})
	return object("Namespace", fields{
		"metadata": object("NamespaceMetadata", fields{
			"name": text, "generateName": text, "namespace": text, "labels": dict(text), "annotations": dict(text),
			"UID": text, "creationTimestamp": when, "deletionGracePeriodSeconds": apiservercel.IntType, "deletionTimestamp": when,
			"generation": apiservercel.IntType, "resourceVersion": text, "finalizers": list(text),
		}),
		"spec":   object("NamespaceSpec", fields{"finalizers": list(text)}),
		"status": object("NamespaceStatus", fields{"conditions": list(condition), "phase": text}),
	})
}
