package meta

// StatusMeta is the metadata that an update of the status leaves alone with
// kinds that say so; keep it besides the spec.
func StatusMeta() []string {
	return []string{"metadata.labels", "metadata.annotations", "metadata.finalizers", "metadata.ownerReferences"}
}
