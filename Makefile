# Every target is what it says; `make help` lists them.

GO         ?= go
LINT       := 2.15.0
CONTAINERD := 2.4.2
KUBERNETES := v1.36.3

GOBIN   := $(or $(shell $(GO) env GOBIN),$(shell $(GO) env GOPATH)/bin)
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
KUBEVER := k8s.io/component-base/version
LDFLAGS := -s -w -X main.commit=$(VERSION) -X $(KUBEVER).gitVersion=$(KUBERNETES) -X $(KUBEVER).gitMajor=1 -X $(KUBEVER).gitMinor=36 -X $(KUBEVER).gitTreeState=clean

# One way to build for all but the race detector, so that little is built twice.
export GOFLAGS := -trimpath
export CGO_ENABLED := 0

# The specs that make e2e runs, one of each area that knarr serves, and their images.
AREAS       = conformance/each-area.txt
AREA_IMAGES = agnhost:2.63|busybox|nginx:1.27|pause

.PHONY: all build up down tools test lint generate integration e2e cluster-e2e areas suite images conformance bench fuzz clean help

all: build

build: ## knarr and stock kubectl, in bin/
	$(GO) build -ldflags '$(LDFLAGS)' -o bin/ ./cmd/knarr ./cmd/kubectl

up: tools build ## a whole cluster on this machine, after installing what it needs
	bin/knarr up

down: ## stop the cluster that `make up` started, and leave nothing of it
	bin/knarr down

tools: ## what a node needs beside knarr: runc, CNI plugins and a containerd 2.1 or later
	@missing=""; \
	command -v runc >/dev/null || missing="$$missing runc"; \
	[ -x /usr/lib/cni/bridge ] || [ -x /opt/cni/bin/bridge ] || missing="$$missing containernetworking-plugins"; \
	[ -x /bin/busybox ] || missing="$$missing busybox-static"; \
	if [ -n "$$missing" ]; then \
		command -v apt-get >/dev/null || { echo "install$$missing, then run make again" >&2; exit 1; }; \
		echo "installing$$missing"; apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$missing >/dev/null; \
	fi
	@have=$$(containerd --version 2>/dev/null | sed -n 's/.* v\{0,1\}\([0-9]*\.[0-9]*\)\..*/\1/p'); \
	if [ -x bin/containerd ] || printf '2.1\n%s\n' "$${have:-0}" | sort -V -C; then exit 0; fi; \
	echo "building containerd $(CONTAINERD) (this machine has $${have:-none})"; \
	GOBIN=$(CURDIR)/bin $(GO) install -ldflags '-s -w' -tags 'no_btrfs no_devmapper no_zfs' \
		github.com/containerd/containerd/v2/cmd/containerd@v$(CONTAINERD) github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2@v$(CONTAINERD)

test: ## unit tests with the race detector, and the rules of the tree
	CGO_ENABLED=1 $(GO) test -race -vet=off -ldflags='-s -w' ./...

lint: ## formatting and linters
	@[ "$$($(GOBIN)/golangci-lint version --short 2>/dev/null)" = $(LINT) ] || $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v$(LINT)
	$(GOBIN)/golangci-lint run ./...
	$(GOBIN)/golangci-lint fmt --diff ./...

generate: ## the eBPF objects and their Go twins; fails where they are not as committed
	$(GO) generate ./proxy/datapath
	git diff --exit-code -- proxy/datapath

integration: tools ## tests that need root, a kernel, containerd or etcd
	$(GO) build -ldflags '-s -w' -o bin/etcd go.etcd.io/etcd/server/v3
	PATH=$(CURDIR)/bin:$$PATH $(GO) test -tags integration -vet=off -count=1 -p 1 \
		$$(grep -rl --include='*_test.go' --exclude-dir=conformance '^//go:build integration' . | xargs -n1 dirname | sort -u)

e2e: cluster-e2e ## a cluster of this build tried as a user would, in one process and in five, and a spec of each area
	$(MAKE) areas

cluster-e2e: tools build
	$(GO) build -ldflags '-s -w' -o bin/etcd go.etcd.io/etcd/server/v3
	$(GO) test -tags e2e -vet=off -count=1 -v -timeout 10m ./cmd/knarr/e2e
	KNARR_E2E_PARTS=1 $(GO) test -tags e2e -vet=off -count=1 -v -timeout 10m ./cmd/knarr/e2e
	$(GO) test -tags e2e -vet=off -count=1 -v -timeout 30m ./cmd/knarr/kills

areas: # one official spec of each area
	$(MAKE) conformance SPECS=$(AREAS) IMAGES='$(AREA_IMAGES)'

suite: build # the official suite, built
	cd conformance/e2e && CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '-s -w' -o $(CURDIR)/bin/conformance/e2e .
	bin/conformance/e2e -build

images: ## what the conformance suite pulls, made here; says what each weighs; IMAGES= for only some
	@missing=""; \
	for pair in cc:gcc make:make bzip2:bzip2; do command -v $${pair%:*} >/dev/null || missing="$$missing $${pair#*:}"; done; \
	[ -e /usr/include/stdio.h ] || missing="$$missing libc6-dev"; \
	[ -z "$$missing" ] || { echo "installing$$missing"; apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$missing >/dev/null; }
	cd conformance/images && CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '-s -w' -o $(CURDIR)/bin/conformance/images .
	bin/conformance/images build -only '$(IMAGES)'

conformance: tools suite images ## the official suite on two nodes; SPECS=, AREA=, FOCUS=, PROCS=, or KUBECONFIG= of another cluster
	conformance/run

bench: build ## speed and size, as ratios to a limit measured in the same run
	$(GO) run ./cmd/bench

fuzz: ## every fuzz target for a minute
	@$(GO) test -list '^Fuzz' ./... | awk '/^Fuzz/ {f[n++]=$$0} /^ok/ {for (i=0;i<n;i++) print $$2, f[i]; n=0}' | \
	while read -r pkg target; do echo "$$pkg $$target"; $(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime 60s "$$pkg" || exit 1; done

clean: ## everything that build made
	rm -rf bin

help: ## this list
	@grep -E '^[a-z0-9-]+:.*##' Makefile | sed -E 's/:[^#]*##/\t/' | expand -t 16
