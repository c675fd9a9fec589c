package stats

import (
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// hierarchies are where the controllers' files are: on a cgroup v1 host each
// controller has a tree of its own, on v2 all share one, and a hybrid host has
// some of each.
type hierarchies struct {
	files fs.FS
	v1    map[string]string // by controller
	v2    string            // empty where there is none
}

// find reads the mounts. A tree mounted twice counts where it is mounted first.
func find(files fs.FS) hierarchies {
	h := hierarchies{files: files, v1: map[string]string{}}
	for line := range strings.Lines(text(files, "proc/self/mountinfo")) {
		mount, tail, _ := strings.Cut(line, " - ")
		m, t := strings.Fields(mount), strings.Fields(tail)
		if len(m) < 5 || len(t) < 3 {
			continue
		}
		at := strings.TrimPrefix(m[4], "/")
		switch t[0] {
		case "cgroup2":
			if h.v2 == "" {
				h.v2 = at
			}
		case "cgroup":
			for c := range strings.SplitSeq(t[2], ",") {
				if h.v1[c] == "" {
					h.v1[c] = at
				}
			}
		}
	}
	return h
}

// version is 2 where memory and processor time are accounted for by cgroup v2.
func (h hierarchies) version() int {
	if h.v1["memory"] == "" && h.v2 != "" {
		return 2
	}
	return 1
}

// dir is where a controller keeps the files of a cgroup, and whether they are v2's.
func (h hierarchies) dir(controller, cgroup string) (string, bool) {
	if at := h.v1[controller]; at != "" {
		return path.Join(at, cgroup), false
	}
	return path.Join(h.v2, cgroup), true
}

// A sample is what the kernel counts for one cgroup. Sizes are in bytes, times
// in nanoseconds, limits unlimited where there is none.
type sample struct {
	at   time.Time
	born time.Time // when the cgroup was made

	cpu                            processor
	mem                            memory
	io                             []blocks
	ioPressure                     pressure
	processes, threads, maxThreads uint64
}

type processor struct {
	usage, user, system               uint64
	periods, throttled, throttledTime uint64
	bursts, burst                     uint64
	shares, quota, period             uint64
	pressure                          pressure
}

type memory struct {
	usage, workingSet, rss, cache, mapped, kernel uint64
	inactiveFile, activeFile                      uint64
	swap, peak, failures, ooms                    uint64
	faults, majorFaults                           uint64
	limit, swapLimit, reservation                 uint64
	pressure                                      pressure
}

// blocks are what was read from and written to one block device.
type blocks struct {
	device                               string // major:minor
	readBytes, writeBytes, reads, writes uint64
}

// read samples a cgroup: processor time and memory, and all else if detail is
// asked for. It reports false where there is no such cgroup.
func (h hierarchies) read(cgroup string, detail bool) (sample, bool) {
	s := sample{
		at:  time.Now(),
		cpu: processor{quota: unlimited},
		mem: memory{limit: unlimited, swapLimit: unlimited, reservation: unlimited},
	}
	dir, v2 := h.dir("memory", cgroup)
	info, err := fs.Stat(h.files, dir)
	if err != nil {
		return s, false
	}
	s.born = info.ModTime()
	if v2 {
		h.memory2(dir, &s.mem, detail)
	} else {
		h.memory1(dir, &s.mem, detail)
	}
	s.mem.workingSet = s.mem.usage - min(s.mem.usage, s.mem.inactiveFile)
	if dir, v2 := h.dir("cpuacct", cgroup); v2 {
		h.cpu2(dir, &s.cpu, detail)
		s.ioPressure = pressures(h.files, dir+"/io.pressure")
	} else {
		s.cpu.usage, _ = number(h.files, dir+"/cpuacct.usage")
	}
	if cgroup == "/" { // the machine's are counted with either version
		s.cpu.pressure = pressures(h.files, "proc/pressure/cpu")
		s.mem.pressure = pressures(h.files, "proc/pressure/memory")
		s.ioPressure = pressures(h.files, "proc/pressure/io")
	}
	if detail {
		if dir, v2 := h.dir("cpu", cgroup); !v2 {
			h.cpu1(dir, cgroup, &s.cpu)
		}
		h.pids(cgroup, &s)
		h.blocks(cgroup, &s)
	}
	return s, true
}

func (h hierarchies) memory1(dir string, m *memory, detail bool) {
	stat := keyed(h.files, dir+"/memory.stat")
	m.usage, _ = number(h.files, dir+"/memory.usage_in_bytes")
	m.rss, m.cache, m.mapped, m.swap = stat["total_rss"], stat["total_cache"], stat["total_mapped_file"], stat["total_swap"]
	m.inactiveFile, m.activeFile = stat["total_inactive_file"], stat["total_active_file"]
	m.faults, m.majorFaults = stat["total_pgfault"], stat["total_pgmajfault"]
	m.limit = h.limit(dir + "/memory.limit_in_bytes")
	if both := h.limit(dir + "/memory.memsw.limit_in_bytes"); both != unlimited && m.limit != unlimited {
		m.swapLimit = both - min(both, m.limit) // v1 limits memory and swap together
	}
	if !detail {
		return
	}
	m.reservation = h.limit(dir + "/memory.soft_limit_in_bytes")
	m.kernel, _ = number(h.files, dir+"/memory.kmem.usage_in_bytes")
	m.peak, _ = number(h.files, dir+"/memory.max_usage_in_bytes")
	m.failures, _ = number(h.files, dir+"/memory.failcnt")
	m.ooms = keyed(h.files, dir+"/memory.oom_control")["oom_kill"]
}

func (h hierarchies) memory2(dir string, m *memory, detail bool) {
	stat := keyed(h.files, dir+"/memory.stat")
	usage, ok := number(h.files, dir+"/memory.current")
	if m.usage = usage; !ok { // the root has no account of its own
		host := keyed(h.files, "proc/meminfo")
		m.usage = host["MemTotal"] - host["MemFree"]
		m.swap = host["SwapTotal"] - host["SwapFree"]
	} else {
		m.swap, _ = number(h.files, dir+"/memory.swap.current")
	}
	m.rss, m.cache, m.mapped, m.kernel = stat["anon"], stat["file"], stat["file_mapped"], stat["kernel"]
	m.inactiveFile, m.activeFile = stat["inactive_file"], stat["active_file"]
	m.faults, m.majorFaults = stat["pgfault"], stat["pgmajfault"]
	m.limit = h.limit(dir + "/memory.max")
	m.swapLimit = h.limit(dir + "/memory.swap.max")
	m.pressure = pressures(h.files, dir+"/memory.pressure")
	if !detail {
		return
	}
	m.reservation = h.limit(dir + "/memory.low")
	m.peak, _ = number(h.files, dir+"/memory.peak")
	events := keyed(h.files, dir+"/memory.events")
	m.failures, m.ooms = events["max"], events["oom_kill"]
}

// limit reads a limit; v1 writes none as the largest number of whole pages.
func (h hierarchies) limit(path string) uint64 {
	if n, ok := number(h.files, path); ok && n < 1<<62 {
		return n
	}
	return unlimited
}

// tick is how long the kernel's USER_HZ is, on every architecture that Go has.
const tick = uint64(10 * time.Millisecond)

func (h hierarchies) cpu1(dir, cgroup string, c *processor) {
	acct, _ := h.dir("cpuacct", cgroup)
	stat := keyed(h.files, acct+"/cpuacct.stat")
	c.user, c.system = stat["user"]*tick, stat["system"]*tick
	stat = keyed(h.files, dir+"/cpu.stat")
	c.periods, c.throttled, c.throttledTime = stat["nr_periods"], stat["nr_throttled"], stat["throttled_time"]
	c.bursts, c.burst = stat["nr_bursts"], stat["burst_time"]
	c.shares, _ = number(h.files, dir+"/cpu.shares")
	c.period, _ = number(h.files, dir+"/cpu.cfs_period_us")
	if quota, ok := number(h.files, dir+"/cpu.cfs_quota_us"); ok {
		c.quota = quota
	}
}

func (h hierarchies) cpu2(dir string, c *processor, detail bool) {
	const us = uint64(time.Microsecond)
	stat := keyed(h.files, dir+"/cpu.stat")
	c.usage, c.user, c.system = stat["usage_usec"]*us, stat["user_usec"]*us, stat["system_usec"]*us
	c.periods, c.throttled, c.throttledTime = stat["nr_periods"], stat["nr_throttled"], stat["throttled_usec"]*us
	c.bursts, c.burst = stat["nr_bursts"], stat["burst_usec"]*us
	c.pressure = pressures(h.files, dir+"/cpu.pressure")
	if !detail {
		return
	}
	if weight, ok := number(h.files, dir+"/cpu.weight"); ok && weight > 0 {
		c.shares = 2 + (weight-1)*262142/9999
	}
	quota, period, _ := strings.Cut(text(h.files, dir+"/cpu.max"), " ")
	if n, ok := parse(quota); ok {
		c.quota = n
	}
	c.period, _ = parse(period)
}

func (h hierarchies) pids(cgroup string, s *sample) {
	dir, _ := h.dir("pids", cgroup)
	s.threads, _ = number(h.files, dir+"/pids.current")
	if n := h.limit(dir + "/pids.max"); n != unlimited {
		s.maxThreads = n
	}
	s.processes = uint64(len(h.procs(cgroup)))
}

// procs are the processes of a cgroup, not of those below it.
func (h hierarchies) procs(cgroup string) []string {
	dir, _ := h.dir("pids", cgroup)
	return strings.Fields(text(h.files, dir+"/cgroup.procs"))
}

func (h hierarchies) blocks(cgroup string, s *sample) {
	dir, v2 := h.dir("blkio", cgroup)
	by := map[string]*blocks{}
	at := func(device string) *blocks {
		if by[device] == nil {
			by[device] = &blocks{device: device}
		}
		return by[device]
	}
	if v2 { // 254:0 rbytes=1 wbytes=2 rios=3 wios=4 …
		for line := range strings.Lines(text(h.files, dir+"/io.stat")) {
			f := strings.Fields(line)
			for _, field := range f[min(1, len(f)):] {
				key, value, _ := strings.Cut(field, "=")
				n, _ := parse(value)
				at(f[0]).add(key, n)
			}
		}
	} else { // 254:0 Read 1
		for file, keys := range map[string][2]string{
			"/blkio.throttle.io_service_bytes_recursive": {"rbytes", "wbytes"},
			"/blkio.throttle.io_serviced_recursive":      {"rios", "wios"},
		} {
			for line := range strings.Lines(text(h.files, dir+file)) {
				if f := strings.Fields(line); len(f) == 3 {
					n, _ := parse(f[2])
					switch f[1] {
					case "Read":
						at(f[0]).add(keys[0], n)
					case "Write":
						at(f[0]).add(keys[1], n)
					}
				}
			}
		}
	}
	for _, b := range by {
		s.io = append(s.io, *b)
	}
	slices.SortFunc(s.io, func(a, b blocks) int { return strings.Compare(a.device, b.device) })
}

func (b *blocks) add(key string, n uint64) {
	switch key {
	case "rbytes":
		b.readBytes += n
	case "wbytes":
		b.writeBytes += n
	case "rios":
		b.reads += n
	case "wios":
		b.writes += n
	}
}

// A tree is the cgroups at and below that of all pods.
type tree struct {
	levels     []string          // of all pods, and of the classes of service
	pods       map[string]string // by uid
	containers map[string]string // by id
}

// walk lists the tree below the cgroup of all pods. Names are those that
// kubelets and runtimes give, with either cgroup driver:
// kubepods/burstable/pod<uid>/<id>, or
// kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid>.slice/cri-containerd-<id>.scope
func (h hierarchies) walk(root string) tree {
	t := tree{pods: map[string]string{}, containers: map[string]string{}}
	var down func(cgroup string, inPod bool)
	down = func(cgroup string, inPod bool) {
		dir, _ := h.dir("memory", cgroup)
		entries, err := fs.ReadDir(h.files, dir)
		if err != nil {
			return
		}
		if !inPod {
			t.levels = append(t.levels, cgroup)
		}
		for _, e := range entries {
			if !e.IsDir() {
				continue
			}
			below := path.Join(cgroup, e.Name())
			switch id, is := podUID(e.Name()); {
			case inPod:
				t.containers[containerID(e.Name())] = below
			case is:
				t.pods[id] = below
				down(below, true)
			default:
				down(below, false)
			}
		}
	}
	down(root, false)
	return t
}

// podUID is the uid in the name of a pod's cgroup.
func podUID(name string) (string, bool) {
	if unit, slice := strings.CutSuffix(name, ".slice"); slice {
		i := strings.LastIndex(unit, "-pod")
		if i < 0 {
			return "", false
		}
		return strings.ReplaceAll(unit[i+len("-pod"):], "_", "-"), true
	}
	uid, is := strings.CutPrefix(name, "pod")
	return uid, is && len(uid) > 0
}

// containerID is the id in the name of a container's cgroup.
func containerID(name string) string {
	name = strings.TrimSuffix(name, ".scope")
	return name[strings.LastIndex(name, "-")+1:]
}

// bootTime is when the machine was started.
func bootTime(files fs.FS) time.Time {
	for line := range strings.Lines(text(files, "proc/stat")) {
		if at, ok := strings.CutPrefix(line, "btime "); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(at), 10, 64)
			return time.Unix(n, 0)
		}
	}
	return time.Time{}
}
