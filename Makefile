# The platform's commands. Each is a small program below scripts/; this file only names them.
# A variable given to make reaches them too: make up FRONT_DOOR_PORT=9090

SHELL := /bin/bash
.DEFAULT_GOAL := help

BIN      := bin
SERVICES := gateway orchestrator worker migrate flowctl
# As make up builds them: the same source gives the same bytes.
GO_BUILD := CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags='-s -w'

export FLOW_DATA_DIR ?= /var/lib/flowplatform

##@ The platform on this machine

.PHONY: up
up: need-go ## Install what is missing, build, start everything, run a sample flow. Again: changes only what differs
	@go run ./scripts/platform up

.PHONY: down
down: need-go ## Stop what make up started: jobs first, drained, then the agents. Data stays
	@go run ./scripts/platform down

.PHONY: clean
clean: need-go ## make down, and remove its data (FLOW_DATA_DIR [/var/lib/flowplatform]) and bin/
	@go run ./scripts/platform clean
	@rm -rf $(BIN)

.PHONY: status
status: need-go ## What runs, and where
	@go run ./scripts/platform status

.PHONY: servers
servers: need-go ## Only the ground: Consul, Nomad, PostgreSQL, RabbitMQ, Redis, artifacts
	@go run ./scripts/platform servers

##@ Proof

.PHONY: test
test: need-go ## Every test that needs no second machine, against real servers on ports of their own. ARGS="-run X ./services/…"
	@scripts/test $(ARGS)

.PHONY: check
check: need-go ## Format, vet, staticcheck, import rules, shell scripts, jobs and configuration: fails on drift
	@scripts/check

.PHONY: sim
sim: need-go ## The protocol in the simulator, with more seeds than make test takes, on all cores: SEEDS [10000]
	@FLOW_SIM_SEEDS=$(or $(SEEDS),10000) go test -count=1 -timeout 60m -v ./services/internal/protocol/sim/...

.PHONY: bench
bench: ## Load through the front door against what is running; prints a table, writes JSON. ARGS="--help" for its options
	@scripts/bench $(ARGS)

.PHONY: chaos
chaos: need-go ## Kills and stops parts of what is running, under load, and counts what was lost or done twice. ARGS="--seed 7 --duration 2m"
	@go run ./scripts/chaos $(ARGS)

.PHONY: demo-release
demo-release: need-go ## Releases on what is running, under load: good ones, bad ones, and going back; counts what failed. ARGS="--help" for its options
	@go run ./scripts/demo-release $(ARGS)

.PHONY: cluster-lab
cluster-lab: need-go ## A cluster of five hosts, made on this machine, by terraform apply: kills two under load, counts, destroys. ARGS="--help" for its options
	@go run ./scripts/cluster-lab $(ARGS)

.PHONY: demo-scaling
demo-scaling: need-go ## A burst on what is running: the workers grow and shrink; prints a table, draws a picture. ARGS="--help" for its options
	@go run ./scripts/demo-scaling $(ARGS)

##@ Building

.PHONY: build
build: need-go ## Every program, into bin/
	@mkdir -p $(BIN)
	@$(GO_BUILD) -o $(BIN)/ $(addprefix ./services/,$(SERVICES))

.PHONY: release
release: need-go ## Programs for each processor, jobs, installer, parts list, bundle, sums: VERSION=1.4.0 [OUT=dist] [PACKAGES=yes]. The same source gives the same bytes
	@go run ./scripts/release --version "$(VERSION)" --out "$(or $(OUT),dist)" --packages "$(or $(PACKAGES),no)"

.PHONY: bundle
bundle: need-go ## The one file that a cluster is made of: VERSION=1.4.0 [OUT=dist] [PACKAGES=yes, for hosts without a network beyond each other]
	@go run ./scripts/bundle --version "$(VERSION)" --out "$(or $(OUT),dist)" --packages "$(or $(PACKAGES),no)"

.PHONY: image
image: need-go ## The QEMU image out of a bundle (packer/), and two machines booted from it: VERSION=1.4.0 [QEMU_SOURCE=base] [ACCELERATOR=tcg]
	@packer/image "$(VERSION)"

.PHONY: fmt
fmt: need-go ## Format Go and HCL in place
	@scripts/fmt

.PHONY: lint
lint: check ## The same as check

.PHONY: help
help: ## This list
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@/ { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: need-go
need-go:
	@command -v go >/dev/null || { echo "make: Go 1.26 or newer is needed to build the platform: https://go.dev/dl" >&2; exit 1; }
