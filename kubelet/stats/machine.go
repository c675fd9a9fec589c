package stats

import (
	"cmp"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// A Machine is what the node's hardware is. Its JSON is what /spec serves, in
// the form that cAdvisor gave it.
// contract: HT-4
type Machine struct {
	Timestamp     time.Time       `json:"timestamp"`
	VendorID      string          `json:"vendor_id"`
	Cores         int             `json:"num_cores"`
	PhysicalCores int             `json:"num_physical_cores"`
	Sockets       int             `json:"num_sockets"`
	FrequencyKHz  uint64          `json:"cpu_frequency_khz"`
	Memory        uint64          `json:"memory_capacity"`
	Swap          uint64          `json:"swap_capacity"`
	MemoryByType  map[string]any  `json:"memory_by_type"`
	NVM           nvm             `json:"nvm"`
	HugePages     []hugePages     `json:"hugepages"`
	MachineID     string          `json:"machine_id"`
	SystemUUID    string          `json:"system_uuid"`
	BootID        string          `json:"boot_id"`
	Filesystems   []filesystem    `json:"filesystems"`
	Disks         map[string]disk `json:"disk_map"`
	Network       []nic           `json:"network_devices"`
	Topology      []numaNode      `json:"topology"`
	CloudProvider string          `json:"cloud_provider"`
	InstanceType  string          `json:"instance_type"`
	InstanceID    string          `json:"instance_id"`

	kernel, os string
}

type nvm struct {
	MemoryMode uint64 `json:"memory_mode_capacity"`
	AppDirect  uint64 `json:"app direct_mode_capacity"`
	Power      uint   `json:"avg_power_budget"`
}

type hugePages struct {
	SizeKB uint64 `json:"page_size"`
	Pages  uint64 `json:"num_pages"`
}

type filesystem struct {
	Device    string `json:"device"`
	Capacity  uint64 `json:"capacity"`
	Type      string `json:"type"`
	Inodes    uint64 `json:"inodes"`
	HasInodes bool   `json:"has_inodes"`

	mount string
}

type disk struct {
	Name      string `json:"name"`
	Major     uint64 `json:"major"`
	Minor     uint64 `json:"minor"`
	Size      uint64 `json:"size"`
	Scheduler string `json:"scheduler"`
}

type nic struct {
	Name  string `json:"name"`
	MAC   string `json:"mac_address"`
	Speed int64  `json:"speed"`
	MTU   int64  `json:"mtu"`
}

type numaNode struct {
	ID        int         `json:"node_id"`
	Memory    uint64      `json:"memory"`
	HugePages []hugePages `json:"hugepages"`
	Cores     []core      `json:"cores"`
	Caches    []cpuCache  `json:"caches"`
	Distances []uint64    `json:"distances"`
}

type core struct {
	ID      int        `json:"core_id"`
	Threads []int      `json:"thread_ids"`
	Caches  []cpuCache `json:"caches"`
	Uncore  []cpuCache `json:"uncore_caches"`
	Socket  int        `json:"socket_id"`
}

type cpuCache struct {
	ID    int    `json:"id"`
	Size  uint64 `json:"size"`
	Type  string `json:"type"`
	Level int    `json:"level"`
}

// ReadMachine looks at the machine that files, the root of its file system,
// are of. The disk of each file system is measured with statfs.
func ReadMachine(files fs.FS, statfs func(path string) (FS, error)) *Machine {
	memory, info := keyed(files, "proc/meminfo"), cpuinfo(files)
	m := &Machine{
		Timestamp: time.Now(), VendorID: info["vendor_id"],
		Memory: memory["MemTotal"], Swap: memory["SwapTotal"], MemoryByType: map[string]any{},
		HugePages:   pagesOf(files, "sys/kernel/mm/hugepages"),
		MachineID:   cmp.Or(text(files, "etc/machine-id"), text(files, "var/lib/dbus/machine-id")),
		BootID:      text(files, "proc/sys/kernel/random/boot_id"),
		Topology:    topology(files),
		Filesystems: filesystems(files, statfs), Disks: disks(files), Network: nics(files),
		CloudProvider: "Unknown", InstanceType: "Unknown", InstanceID: "None",
		kernel: text(files, "proc/sys/kernel/osrelease"), os: osImage(files),
	}
	m.SystemUUID = cmp.Or(text(files, "sys/class/dmi/id/product_uuid"), text(files, "proc/device-tree/vm,uuid"), m.MachineID)
	mhz, _ := strconv.ParseFloat(info["cpu MHz"], 64)
	khz, _ := number(files, "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")
	m.FrequencyKHz = cmp.Or(khz, uint64(mhz*1000))
	sockets := map[int]bool{}
	for _, n := range m.Topology {
		m.PhysicalCores += len(n.Cores)
		for _, c := range n.Cores {
			m.Cores += len(c.Threads)
			sockets[c.Socket] = true
		}
	}
	m.Sockets = len(sockets)
	return m
}

// Capacity is what the machine has for pods to share, but for its disk.
func (m *Machine) Capacity() corev1.ResourceList {
	l := corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewMilliQuantity(int64(m.Cores)*1000, resource.DecimalSI),
		corev1.ResourceMemory: *resource.NewQuantity(int64(m.Memory), resource.BinarySI),
	}
	for _, p := range m.HugePages {
		size := resource.NewQuantity(int64(p.SizeKB<<10), resource.BinarySI)
		l[corev1.ResourceName(corev1.ResourceHugePagesPrefix+size.String())] = *resource.NewQuantity(int64(p.SizeKB<<10*p.Pages), resource.BinarySI)
	}
	return l
}

// IDs tell this machine, and this run of it, from all others.
func (m *Machine) IDs() (machine, system, boot string) { return m.MachineID, m.SystemUUID, m.BootID }

// SwapBytes is how much swap there is.
func (m *Machine) SwapBytes() int64 { return int64(m.Swap) }

// System is the kernel's version and what the system calls itself.
func (m *Machine) System() (kernel, os string) { return m.kernel, m.os }

func osImage(files fs.FS) string {
	for _, path := range []string{"etc/os-release", "usr/lib/os-release"} {
		for line := range strings.Lines(text(files, path)) {
			if name, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); ok {
				return strings.Trim(name, `"'`)
			}
		}
	}
	return "Linux"
}

// cpuinfo has the lines about the first processor.
func cpuinfo(files fs.FS) map[string]string {
	m := map[string]string{}
	for line := range strings.Lines(text(files, "proc/cpuinfo")) {
		key, value, ok := strings.Cut(line, ":")
		if !ok {
			break
		}
		m[strings.TrimSpace(key)] = strings.TrimSpace(value)
	}
	return m
}

func pagesOf(files fs.FS, dir string) (list []hugePages) {
	for _, name := range names(files, dir) {
		size, ok := parse(strings.TrimSuffix(strings.TrimPrefix(name, "hugepages-"), "kB"))
		if n, has := number(files, path.Join(dir, name, "nr_hugepages")); ok && has {
			list = append(list, hugePages{size, n})
		}
	}
	return list
}

// topology has one node where the kernel knows of none.
func topology(files fs.FS) (list []numaNode) {
	const dir = "sys/devices/system/node"
	for _, name := range names(files, dir) {
		id, err := strconv.Atoi(strings.TrimPrefix(name, "node"))
		if err != nil {
			continue
		}
		n := numaNode{ID: id, HugePages: pagesOf(files, path.Join(dir, name, "hugepages"))}
		for line := range strings.Lines(text(files, path.Join(dir, name, "meminfo"))) { // Node 0 MemTotal: 12 kB
			if f := strings.Fields(line); len(f) == 5 && f[2] == "MemTotal:" {
				n.Memory, _ = parse(f[3])
				n.Memory <<= 10
			}
		}
		for d := range strings.FieldsSeq(text(files, path.Join(dir, name, "distance"))) {
			x, _ := parse(d)
			n.Distances = append(n.Distances, x)
		}
		n.fill(files, cpuList(text(files, path.Join(dir, name, "cpulist"))))
		list = append(list, n)
	}
	if len(list) == 0 {
		n := numaNode{Memory: keyed(files, "proc/meminfo")["MemTotal"], HugePages: pagesOf(files, "sys/kernel/mm/hugepages")}
		n.fill(files, cpuList(text(files, "sys/devices/system/cpu/online")))
		list = append(list, n)
	}
	slices.SortFunc(list, func(a, b numaNode) int { return a.ID - b.ID })
	return list
}

// cpuList reads a list such as 0-3,8.
func cpuList(s string) (cpus []int) {
	for part := range strings.SplitSeq(s, ",") {
		first, last, isRange := strings.Cut(part, "-")
		a, err := strconv.Atoi(first)
		if err != nil {
			continue
		}
		b := a
		if isRange {
			b, _ = strconv.Atoi(last)
		}
		for ; a <= b; a++ {
			cpus = append(cpus, a)
		}
	}
	return cpus
}

// fill sorts the node's threads into cores. A cache belongs to a core if only
// the core's threads use it, to the node if all of the node's do, else it is
// one of the uncore ones.
func (n *numaNode) fill(files fs.FS, cpus []int) {
	const dir = "sys/devices/system/cpu/cpu"
	int_ := func(p string) int { i, _ := strconv.Atoi(text(files, p)); return i }
	for _, cpu := range cpus {
		at := dir + strconv.Itoa(cpu)
		if text(files, at+"/online") == "0" {
			continue
		}
		id, socket := int_(at+"/topology/core_id"), int_(at+"/topology/physical_package_id")
		i := slices.IndexFunc(n.Cores, func(c core) bool { return c.ID == id && c.Socket == socket })
		if i < 0 {
			i = len(n.Cores)
			n.Cores = append(n.Cores, core{ID: id, Socket: socket})
		}
		n.Cores[i].Threads = append(n.Cores[i].Threads, cpu)
	}
	for i := range n.Cores {
		c := &n.Cores[i]
		at := dir + strconv.Itoa(c.Threads[0]) + "/cache"
		for _, name := range names(files, at) {
			if !strings.HasPrefix(name, "index") {
				continue
			}
			kb, _ := parse(strings.TrimSuffix(text(files, path.Join(at, name, "size")), "K"))
			found := cpuCache{int_(path.Join(at, name, "id")), kb << 10, text(files, path.Join(at, name, "type")), int_(path.Join(at, name, "level"))}
			switch users := len(cpuList(text(files, path.Join(at, name, "shared_cpu_list")))); {
			case users <= len(c.Threads):
				c.Caches = append(c.Caches, found)
			case users < len(cpus):
				c.Uncore = append(c.Uncore, found)
			case !slices.Contains(n.Caches, found):
				n.Caches = append(n.Caches, found)
			}
		}
	}
}

// filesystems are those on block devices, each once.
func filesystems(files fs.FS, statfs func(string) (FS, error)) (list []filesystem) {
	for line := range strings.Lines(text(files, "proc/self/mountinfo")) {
		mount, tail, _ := strings.Cut(line, " - ")
		m, t := strings.Fields(mount), strings.Fields(tail)
		if len(m) < 5 || len(t) < 2 || !strings.HasPrefix(t[1], "/dev/") ||
			slices.ContainsFunc(list, func(f filesystem) bool { return f.Device == t[1] }) {
			continue
		}
		if s, err := statfs(m[4]); err == nil {
			list = append(list, filesystem{t[1], s.Capacity, t[0], s.Inodes, s.Inodes > 0, m[4]})
		}
	}
	return list
}

func disks(files fs.FS) map[string]disk {
	m := map[string]disk{}
	for _, name := range names(files, "sys/block") {
		if strings.HasPrefix(name, "loop") || strings.HasPrefix(name, "ram") || strings.HasPrefix(name, "sr") {
			continue
		}
		at := "sys/block/" + name
		device := text(files, at+"/dev")
		major, minor, _ := strings.Cut(device, ":")
		d := disk{Name: name, Scheduler: "none"}
		d.Major, _ = parse(major)
		d.Minor, _ = parse(minor)
		sectors, _ := number(files, at+"/size")
		d.Size = sectors * 512
		if _, after, ok := strings.Cut(text(files, at+"/queue/scheduler"), "["); ok {
			d.Scheduler, _, _ = strings.Cut(after, "]")
		}
		m[device] = d
	}
	return m
}

// nics are the devices that are not the pods'.
func nics(files fs.FS) (list []nic) {
	for _, name := range names(files, "sys/class/net") {
		if name == "lo" || strings.HasPrefix(name, "veth") {
			continue
		}
		at := "sys/class/net/" + name
		n := nic{Name: name, MAC: text(files, at+"/address")}
		n.MTU, _ = strconv.ParseInt(text(files, at+"/mtu"), 10, 64)
		n.Speed, _ = strconv.ParseInt(text(files, at+"/speed"), 10, 64)
		list = append(list, n)
	}
	return list
}
