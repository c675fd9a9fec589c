// Package table lays objects out as the rows and columns that kubectl get
// prints. What the columns are the kinds say themselves.
package table

import (
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/knarr-dev/knarr/apis"
)

// Columns are the column definitions of a kind's table.
func Columns(d *apis.Definition) []metav1.TableColumnDefinition {
	docs := metav1.ObjectMeta{}.SwaggerDoc()
	cols := make([]metav1.TableColumnDefinition, len(d.Columns))
	for i, c := range d.Columns {
		cols[i] = metav1.TableColumnDefinition{Name: c.Name, Type: "string", Format: c.Format, Description: c.Description, Priority: c.Priority}
		if c.Type != "" {
			cols[i].Type = c.Type
		}
		if c.Wide {
			cols[i].Priority = 1
		}
		if c.Description != "" {
			continue
		}
		switch c.Name {
		case "Name":
			cols[i].Format, cols[i].Description = "name", docs["name"]
		case "Age", "Created At":
			cols[i].Description = docs["creationTimestamp"]
		}
	}
	return cols
}

// Row is the row of an object, with as much of the object as include says.
// The object has its kind and apiVersion set.
func Row(d *apis.Definition, obj, shown apis.Object, include metav1.IncludeObjectPolicy, version string, now time.Time) (metav1.TableRow, error) {
	row := metav1.TableRow{Cells: make([]any, len(d.Columns))}
	for i, c := range d.Columns {
		row.Cells[i] = c.Cell(obj, now)
	}
	switch include {
	case metav1.IncludeNone:
	case metav1.IncludeObject:
		row.Object = runtime.RawExtension{Object: shown}
	case metav1.IncludeMetadata, "":
		row.Object = runtime.RawExtension{Object: Metadata(shown, version)}
	default:
		return row, fmt.Errorf("Unable to convert to Table as requested: includeObject: Invalid value: %q: must be 'Metadata', 'Object', 'None', or empty", include) //nolint:staticcheck // the stock server's words
	}
	return row, nil
}

// Metadata is an object's metadata alone, in a version of meta.k8s.io.
func Metadata(obj apis.Object, version string) *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{
		TypeMeta:   metav1.TypeMeta{Kind: "PartialObjectMetadata", APIVersion: version},
		ObjectMeta: *objectMeta(obj),
	}
}

// objectMeta is the metadata of any API object.
func objectMeta(obj apis.Object) *metav1.ObjectMeta {
	if a, ok := obj.(metav1.ObjectMetaAccessor); ok {
		if m, ok := a.GetObjectMeta().(*metav1.ObjectMeta); ok {
			return m
		}
	}
	return &metav1.ObjectMeta{
		Name: obj.GetName(), GenerateName: obj.GetGenerateName(), Namespace: obj.GetNamespace(), UID: obj.GetUID(),
		ResourceVersion: obj.GetResourceVersion(), Generation: obj.GetGeneration(), CreationTimestamp: obj.GetCreationTimestamp(),
		DeletionTimestamp: obj.GetDeletionTimestamp(), DeletionGracePeriodSeconds: obj.GetDeletionGracePeriodSeconds(),
		Labels: obj.GetLabels(), Annotations: obj.GetAnnotations(), OwnerReferences: obj.GetOwnerReferences(),
		Finalizers: obj.GetFinalizers(), ManagedFields: obj.GetManagedFields(),
	}
}
