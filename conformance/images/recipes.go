package main

import (
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// The registries, and the repository that needs a password.
const (
	suite   = "registry.k8s.io/e2e-test-images/"
	private = "gcr.io/k8s-authenticated-test/agnhost"
)

// The modules that programs are built in, below the source folder, and where
// the sources of the suite's own images are in theirs.
const (
	e2e       = "e2e"
	oldServer = "images/sampleapiserver"
	upstream  = "k8s.io/kubernetes"
)

// A recipe says what an image consists of: its layers, the lowest first, by
// the name of their part.
type recipe struct {
	name   string
	parts  []string
	config v1.Config
}

// recipes are all images, as e2e.test --list-images names them. What it names
// and is not here, no conformance spec pulls.
var recipes = []recipe{
	{name: suite + "agnhost:2.63.0", parts: agnhost, config: agnhostConfig},
	{name: suite + "agnhost:2.55", parts: agnhost, config: agnhostConfig},
	{name: private + ":2.6", parts: agnhost, config: agnhostConfig},
	{name: suite + "busybox:1.37.0-1", parts: []string{"base"}, config: v1.Config{Cmd: []string{"sh"}}},
	{name: suite + "glibc-dns-testing:2.0.0", parts: []string{"base", "dns"}, config: v1.Config{Cmd: []string{"sh"}}},
	{name: suite + "kitten:1.8", parts: append(slices.Clip(agnhost), "kitten"), config: pictureConfig},
	{name: suite + "nautilus:1.8", parts: append(slices.Clip(agnhost), "nautilus"), config: pictureConfig},
	{name: suite + "nginx:1.15-4", parts: []string{"base", "nginx"}, config: nginxConfig},
	{name: suite + "nginx:1.27-0", parts: []string{"base", "nginx"}, config: nginxConfig},
	{name: suite + "nonewprivs:1.4", parts: []string{"base", "nonewprivs"}, config: v1.Config{Cmd: []string{"nnp"}}},
	{name: suite + "nonroot:1.5", parts: []string{"base"}, config: v1.Config{Cmd: []string{"sh"}, User: "1234"}},
	{name: suite + "resource-consumer:1.14", parts: []string{"base", "consumer"}, config: v1.Config{Entrypoint: []string{"/consumer"}, ExposedPorts: ports("8080/tcp")}},
	{name: suite + "sample-apiserver:1.29.2", parts: []string{"base", "sampleapiserver"}, config: v1.Config{Entrypoint: []string{"/sample-apiserver"}}},
	{name: "registry.k8s.io/etcd:3.6.8-0", parts: []string{"base", "etcd"}, config: v1.Config{}},
	{name: pause, parts: []string{"pause"}, config: pauseConfig},
}

const pause = "registry.k8s.io/pause:3.10.2"

var (
	agnhost       = []string{"base", "network", "registry", "agnhost"}
	agnhostConfig = v1.Config{Entrypoint: []string{"/agnhost"}, Cmd: []string{"pause"}, ExposedPorts: ports("80/tcp", "5000/tcp", "8080/tcp", "8081/tcp", "9376/tcp")}
	pictureConfig = v1.Config{Entrypoint: []string{"/agnhost"}, Cmd: []string{"test-webserver"}, ExposedPorts: ports("80/tcp")}
	nginxConfig   = v1.Config{Cmd: []string{"nginx", "-g", "daemon off;"}, ExposedPorts: ports("80/tcp"), StopSignal: "SIGQUIT"}
	pauseConfig   = v1.Config{Entrypoint: []string{"/pause"}, User: "65535:65535"}
)

func ports(names ...string) map[string]struct{} {
	set := map[string]struct{}{}
	for _, n := range names {
		set[n] = struct{}{}
	}
	return set
}

// A part is what one layer is made of. It goes into the key that says whether
// images with the layer are still what they would become; that Make changed
// shows in this program, which is in the key too.
type part struct {
	Packages []string          // of Debian, with what they depend on
	Programs []program         // Go programs
	Copies   map[string]string // from a path in upstream's module to one in the image
	Files    map[string]string // by path
	Links    map[string]string // by path
	Dirs     map[string]int64  // modes by path
	Make     maker             `json:"-"` // the rest
}

// A program is built from a Go package as that module requires it.
type program struct {
	Module, Package string
	To              string
	Mode            int64
	Version         string // what it is to say its version is, empty where nobody asks
}

// parts are the layers by name.
var parts = map[string]part{
	"base": {
		Make: busybox,
		Files: map[string]string{
			"etc/passwd": passwd, "etc/group": group, "etc/hosts": "127.0.0.1 localhost\n",
			"etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
			// A spec that mounts an image as a volume reads whose it says it is.
			"etc/os-release": "NAME=\"Alpine Linux\"\nID=alpine\nPRETTY_NAME=\"What the specs take for Alpine Linux\"\n",
		},
		Dirs: map[string]int64{"tmp": 0o1777, "var/tmp": 0o1777, "root": 0o700, "home": 0o755, "run": 0o755, "dev": 0o755, "proc": 0o555, "sys": 0o555},
	},
	"network": {
		Packages: []string{"bash", "bind9-dnsutils", "ca-certificates", "curl", "iperf", "iproute2", "libc-bin", "netcat-openbsd", "util-linux"},
		Links:    map[string]string{"usr/bin/nc": "nc.openbsd"},
	},
	"registry": {Make: fakeRegistry},
	"agnhost": {
		Programs: []program{{e2e, upstream + "/test/images/agnhost", "agnhost", 0o755, "2.63.0"}},
		Copies: map[string]string{
			"test/images/agnhost/porter/localhost.crt": "localhost.crt", "test/images/agnhost/porter/localhost.key": "localhost.key",
		},
		Files: map[string]string{
			"etc/passwd": passwd + "user-defined-in-image:x:1000:1000::/home/user-defined-in-image:/bin/sh\n",
			"etc/group":  group + "user-defined-in-image:x:1000:\ngroup-defined-in-image:x:50000:user-defined-in-image\n",
		},
		Dirs:  map[string]int64{"uploads": 0o777},
		Links: map[string]string{"agnhost-2": "agnhost"},
	},
	"dns":    {Packages: []string{"bash", "bind9-dnsutils", "bind9-host", "libc-bin"}},
	"kitten": {Copies: map[string]string{"test/images/kitten/html/kitten.jpg": "kitten.jpg", "test/images/kitten/html/data.json": "data.json"}},
	"nautilus": {
		Copies: map[string]string{"test/images/nautilus/html/nautilus.jpg": "nautilus.jpg", "test/images/nautilus/html/data.json": "data.json"},
	},
	"nginx": {
		Packages: []string{"nginx"},
		Files: map[string]string{
			"etc/nginx/nginx.conf":            nginxConf,
			"usr/share/nginx/html/index.html": "<!DOCTYPE html>\n<title>Welcome to nginx!</title>\n<h1>Welcome to nginx!</h1>\n",
		},
		Dirs: map[string]int64{"var/log/nginx": 0o755, "var/lib/nginx": 0o755},
	},
	"nonewprivs": {Programs: []program{{e2e, upstream + "/test/images/nonewprivs", "usr/local/bin/nnp", 0o6755, ""}}},
	"consumer": {
		Packages: []string{"stress"},
		Programs: []program{
			{e2e, upstream + "/test/images/resource-consumer", "consumer", 0o755, ""},
			{e2e, upstream + "/test/images/resource-consumer/consume-cpu", "consume-cpu", 0o755, ""},
		},
	},
	"sampleapiserver": {Programs: []program{{oldServer, "k8s.io/sample-apiserver", "sample-apiserver", 0o755, ""}}},
	"etcd":            {Programs: []program{{e2e, "go.etcd.io/etcd/server/v3", "usr/local/bin/etcd", 0o755, ""}}},
	"pause":           {Make: pauseProgram},
}

const passwd = `root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
sys:x:3:3:sys:/dev:/bin/false
mail:x:8:8:mail:/var/spool/mail:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
`

const group = `root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
tty:x:5:
mail:x:8:
www-data:x:33:
users:x:100:
nogroup:x:65534:
`

// nginxConf serves one folder, and writes only below /tmp, so that it also
// runs as nobody in particular.
const nginxConf = `worker_processes 1;
pid /tmp/nginx.pid;
error_log /dev/stderr notice;
events { worker_connections 256; }
http {
	include mime.types;
	default_type application/octet-stream;
	access_log /dev/stdout;
	client_body_temp_path /tmp/body;
	proxy_temp_path /tmp/proxy;
	fastcgi_temp_path /tmp/fastcgi;
	uwsgi_temp_path /tmp/uwsgi;
	scgi_temp_path /tmp/scgi;
	server {
		listen 80;
		root /usr/share/nginx/html;
		index index.html;
	}
}
`
