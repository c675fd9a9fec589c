package bootstrap

import (
	"encoding/json"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-dev/knarr/apis"
)

// ownership says that manager owns all fields of a new object that are set.
// It is worked out by the few rules that hold for the kinds here, as the
// account that does it for every kind must read all their schemas first.
func ownership(obj apis.Object, version, manager string, now metav1.Time) (metav1.ManagedFieldsEntry, error) {
	data, err := json.Marshal(obj)
	if err != nil {
		return metav1.ManagedFieldsEntry{}, fmt.Errorf("own fields of %s: %w", obj.GetName(), err)
	}
	var all map[string]any
	if err := json.Unmarshal(data, &all); err != nil {
		return metav1.ManagedFieldsEntry{}, fmt.Errorf("own fields of %s: %w", obj.GetName(), err)
	}
	delete(all, "status")
	delete(all, "kind")
	delete(all, "apiVersion")
	meta, _ := all["metadata"].(map[string]any)
	for name := range meta {
		if name != "labels" && name != "annotations" {
			delete(meta, name)
		}
	}
	raw, err := json.Marshal(paths(all, ""))
	return metav1.ManagedFieldsEntry{
		Manager: manager, Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: version, Time: &now,
		FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(string(raw)),
	}, err
}

// Fields that are owned as one, and fields that are not owned besides their
// own fields because they are always there.
var (
	atomic = []string{"roleRef"}
	always = []string{"", "metadata", "spec", "priorityLevelConfiguration"}
)

// paths are the paths of what is set in a field.
func paths(fields map[string]any, of string) map[string]any {
	set := map[string]any{}
	if !slices.Contains(always, of) {
		set["."] = map[string]any{}
	}
	for name, value := range fields {
		inner, nested := value.(map[string]any)
		switch {
		case value == nil || nested && len(inner) == 0:
		case nested && !slices.Contains(atomic, name):
			set["f:"+name] = paths(inner, name)
		default:
			set["f:"+name] = map[string]any{}
		}
	}
	return set
}
