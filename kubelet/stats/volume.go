package stats

import (
	"maps"
	"path/filepath"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	statsv1alpha1 "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// volumeLife is how long what a pod's volumes hold is believed, as stock:
// adding up a directory can be slow.
const volumeLife = time.Minute

// A measured is what the files of one pod took up at a time.
type measured struct {
	at    time.Time
	list  []volume
	hosts usage // the pod's own /etc/hosts
}

type volume struct {
	statsv1alpha1.VolumeStats

	ephemeral bool // of the node's disk, and gone with the pod
}

// measure adds up the volumes of a pod that are mounted now.
func (z summing) measure(uid string) measured {
	if m, ok := z.volumes[uid]; ok && time.Since(m.at) < volumeLife {
		return m
	}
	m := measured{at: time.Now()}
	for _, pod := range z.Pods() {
		if string(pod.UID) != uid {
			continue
		}
		dir := filepath.Join(z.Root, "pods", uid)
		m.hosts, _ = du(filepath.Join(dir, "etc-hosts"))
		for _, v := range pod.Spec.Volumes {
			if s, ok := z.volume(dir, pod, v); ok {
				m.list = append(m.list, s)
			}
		}
	}
	maps.DeleteFunc(z.volumes, func(_ string, m measured) bool { return time.Since(m.at) >= volumeLife })
	z.volumes[uid] = m
	return m
}

// volume measures one volume: a whole file system where it has one to itself,
// else a directory. A claim's directory has the name of what is bound to it,
// which the pod does not tell, but such a volume is a mount that no other
// volume of the pod has.
func (z summing) volume(dir string, pod *corev1.Pod, v corev1.Volume) (_ volume, ok bool) {
	claim := claimOf(pod, v)
	at, _ := filepath.Glob(filepath.Join(dir, "volumes", "*", v.Name))
	if claim != nil && len(at) == 0 {
		at = z.claimed(dir, pod)
	}
	if len(at) != 1 {
		return volume{}, false
	}
	if mount := filepath.Join(at[0], "mount"); filepath.Base(filepath.Dir(at[0])) == "kubernetes.io~csi" {
		at[0] = mount
	}
	fs, err := z.Statfs(at[0])
	if err != nil {
		return volume{}, false
	}
	used := usage{fs.Used, fs.Inodes - fs.InodesFree}
	if root, ok := z.statfs(z.Root); !ok || fs.Device == root.Device {
		if used, err = du(at[0]); err != nil {
			return volume{}, false
		}
	}
	return volume{statsv1alpha1.VolumeStats{
		Name: v.Name, PVCRef: claim, FsStats: *fsStats(time.Now(), fs, used.bytes, used.inodes),
	}, ephemeral(v)}, true
}

// claimed are the directories of volumes that the pod names otherwise.
func (z summing) claimed(dir string, pod *corev1.Pod) (list []string) {
	all, _ := filepath.Glob(filepath.Join(dir, "volumes", "*", "*"))
	for _, at := range all {
		if !slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == filepath.Base(at) }) {
			list = append(list, at)
		}
	}
	return list
}

func claimOf(pod *corev1.Pod, v corev1.Volume) *statsv1alpha1.PVCReference {
	switch {
	case v.PersistentVolumeClaim != nil:
		return &statsv1alpha1.PVCReference{Namespace: pod.Namespace, Name: v.PersistentVolumeClaim.ClaimName}
	case v.Ephemeral != nil:
		return &statsv1alpha1.PVCReference{Namespace: pod.Namespace, Name: pod.Name + "-" + v.Name}
	}
	return nil
}

func ephemeral(v corev1.Volume) bool {
	return v.EmptyDir != nil && v.EmptyDir.Medium == corev1.StorageMediumDefault || v.ConfigMap != nil || v.DownwardAPI != nil
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
