// Package node keeps the Node object true to the node: it registers the node,
// renews its lease, and writes its status when that changes and now and then
// when it does not.
//
// What the status is, Status says from facts alone; Run gathers the facts and
// writes. Whether pods fit the node, and what becomes of them, is decided
// elsewhere.
package node

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Settings are what a node is told about itself.
type Settings struct {
	Name       string
	Hostname   string // Name where empty
	Version    string // of the kubelet, such as v1.36.3
	Labels     map[string]string
	Taints     []corev1.Taint // given at registration only
	ProviderID string
	Port       int32 // of the kubelet's server

	MaxPods     int64
	PodsPerCore int64 // 0 for any number
	MaxImages   int   // told of, negative for all
	// Reserved is not for pods. What hard eviction keeps free, by signal such
	// as memory.available, as an amount or a share such as 10%, is not either.
	Reserved     corev1.ResourceList
	HardEviction map[string]string
	// Declared are the optional features that this kubelet has.
	Declared []string
}

// Facts are what is found of a node.
type Facts struct {
	Addresses []corev1.NodeAddress

	// Capacity is the machine's, without disk and pods. Devices add to it;
	// nothing else that the Node has is taken away.
	Capacity           corev1.ResourceList
	Disk               int64 // bytes that the kubelet's file system has, 0 where unknown
	Devices            corev1.ResourceList
	AllocatableDevices corev1.ResourceList

	Info corev1.NodeSystemInfo // but for the versions of runtime and kubelet

	// Version and Runtime are nil where the runtime does not answer.
	Version *runtimeapi.VersionResponse
	Runtime *runtimeapi.StatusResponse
	Images  []*runtimeapi.Image

	Pressure     Pressure
	Problems     []string // more reasons not to be ready
	VolumesInUse []corev1.UniqueVolumeName
}

// Pressure is what the node is short of.
type Pressure struct{ Memory, Disk, PID bool }

// A Machine is the hardware that a node has.
type Machine interface {
	Capacity() corev1.ResourceList // processors, memory and huge pages
	IDs() (machine, system, boot string)
	System() (kernel, os string)
	SwapBytes() int64
}

// An Event is something that happens to a node.
type Event struct{ Type, Reason, Message string }

// count is a plain number of something.
func count(n int64) resource.Quantity { return *resource.NewQuantity(n, resource.DecimalSI) }
