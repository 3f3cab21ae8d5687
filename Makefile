# `make` alone prints what there is.

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT  ?= $(shell git rev-parse --short HEAD 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)
BIN     := bin/svc-index
FUZZ    ?= 10m
PEERS   := testing/performance/peers

.PHONY: $(shell awk -F: '/^[a-z-]+:.*\#\# /{print $$1}' $(MAKEFILE_LIST))

help: ## print the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/svc-index
	@mkdir -p bin
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/svc-index

run: build ## build, start the server, publish the Go tree into it, show it answering
	@deploy/run.sh $(BIN)

docs: ## write docs/config.md from the table of keys
	$(GO) run ./cmd/svc-index config doc > docs/config.md.new && mv docs/config.md.new docs/config.md

test: lint gate-allocs ## everything CI runs: linters, all tests under the race detector, the corpus
	CGO_ENABLED=1 $(GO) test -race -p 1 -timeout 20m ./... # one package at a time: they measure
	$(GO) test -tags rig ./stages/fakenet
	cd $(PEERS) && $(GO) test ./... # a module of its own

quick: ## all tests, without the race detector
	$(GO) test ./...

lint: workflows ## gofmt, vet, staticcheck, actionlint
	@test -z "$$(gofmt -l . | tee /dev/stderr)" || { echo "run gofmt -w on the files above"; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags rig ./...
	$(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...
	cd $(PEERS) && $(GO) vet ./... && $(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...

workflows: ## check the workflow files of the hosted CI
	$(GO) run github.com/rhysd/actionlint/cmd/actionlint@v1.7.12 -shellcheck= -pyflakes= .github/workflows/*.yml

floors: ## the laws of the house: imports go down, one door for each library
	$(GO) test -run 'Floors|Doors' .

corpus: ## the HTTP/1 corpus in all four split modes, over TCP and the Unix socket
	$(GO) test -count 1 -v -run Corpus ./cmd/svc-index

bench: ## micro-benchmarks with allocations
	$(GO) test -run '^$$' -bench . -benchmem ./...

bench-peers: ## our server and its peers in turn, about 15 minutes (QUICK=1: two; PARTS=hits,open..., ROUNDS=n)
	@LDFLAGS='$(LDFLAGS)' GO='$(GO)' $(PEERS)/run.sh $(if $(QUICK),-quick) $(if $(PARTS),-parts $(PARTS)) $(if $(ROUNDS),-rounds $(ROUNDS))

fuzz: ## every fuzz target for FUZZ (10m) each
	@for p in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz'); do \
	    echo "== $$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZ) -fuzzminimizetime 1s $$p || exit 1; \
	  done; done

bench-dht: ## our DHT look-ups held to kad-dht's, interleaved (over 10 minutes alone on the machine)
	$(GO) test -count 1 -v -timeout 20m -run TestBenchDHT ./stages/kaddht -args -bench-dht | grep -v '^[=-]'

dht-faults: ## the long version of the DHT's fault tests: 28 of 60 nodes replaced in 9 s, 5 % of packets lost, two halves
	$(GO) test -count 1 -v -timeout 10m -run 'Churn|Outage|Cancelled|Slow|Poison|PacketLoss|Parted' ./stages/kaddht -args -full

dht-memory: build ## what a client node in a network of 200 costs beside the server without DHT (a minute and a half)
	$(GO) test -count 1 -v -timeout 10m -run TestMemoryOfAClient ./testing/performance/lab -args -binary $(CURDIR)/$(BIN)

faults: ## the slow suite: kill -9, SIGTERM, frozen disk, overload, slow clients (about 20 minutes)
	$(GO) test -tags rig -count 1 -v -timeout 60m -run '^TestFault' ./testing/faults -args -full

proofs: ## amnesia seen from outside: system calls by strace (Debian's, installed if missing), memory scanned for what was told
	@command -v strace >/dev/null || { apt-get update -q && apt-get install -qy --no-install-recommends strace; }
	CI=1 $(GO) test -count 1 -v -timeout 10m -run '^TestFault(Amnesia|Micronode)' ./testing/faults

reload-run: ## a good and a bad configuration in turn, once a second for 5 minutes, under load: nothing lost, none mixed
	$(GO) test -count 1 -v -timeout 15m -run '^TestFaultReload$$' ./testing/faults -args -full

BASE   ?=
ROUNDS ?= 7

HYPERFINE = @command -v hyperfine >/dev/null || { apt-get update -q && apt-get install -qy --no-install-recommends hyperfine; }

gate: ## compare the working tree with BASE (the last tag, else main): time, throughput, processor, memory, start-up; 2 minutes, twice if something fails, on a machine at rest
	$(HYPERFINE)
	$(GO) run ./testing/performance/gate -base '$(BASE)' -rounds $(ROUNDS)

gate-null: ## compare the working tree with itself, and keep the noise of this class of machine as its baseline; 7 minutes
	$(HYPERFINE)
	$(GO) run ./testing/performance/gate -null -save -rounds 28

gate-proof: ## plant a slowdown, a leak, an allocation, and see every gate fail; 5 minutes
	$(HYPERFINE)
	$(GO) run ./testing/performance/gate -proof -rounds 5 -out bin/gate-proof.json

gate-allocs: ## compare what benchmarks allocate with what is kept; seconds, on any machine
	$(GO) run ./testing/performance/gate -allocs

benchstat: ## compare micro-benchmarks with BASE (main): six runs of each, in turns, judged by benchstat
	testing/performance/benchstat.sh '$(or $(BASE),main)'

rules: ## check and play through the Prometheus rules with promtool (Debian's, installed if missing)
	@command -v promtool >/dev/null || { apt-get update -q && apt-get install -qy --no-install-recommends prometheus; }
	$(GO) test -count 1 -v -run 'Rules|Name|Promise' ./telemetry

page: build ## look at the live page with headless Chromium (Debian's, installed if missing); PAGE_SHOTS=DIR keeps pictures
	@command -v chromium >/dev/null || { apt-get update -q && apt-get install -qy chromium; }
	cd testing/page && $(GO) vet ./... && $(GO) test -count 1 -v ./...

LAB := testing/performance
TOOLS = @command -v wrk >/dev/null && command -v nginx >/dev/null && command -v taskset >/dev/null || { apt-get update -q && apt-get install -qy --no-install-recommends wrk nginx-light util-linux; }

bin/svc-index-rig: FORCE
	@$(GO) build -trimpath -tags rig -ldflags '$(LDFLAGS)' -o $@ ./cmd/svc-index
FORCE:

loadgen-check: build ## loadgen beside wrk, vegeta and a busy-polling client: ROUNDS of each (5), on a quiet machine
	$(TOOLS)
	$(GO) -C $(LAB)/vegeta build -o $(CURDIR)/bin/vegeta github.com/tsenart/vegeta/v12
	cc -O2 -Wall -o bin/busy $(LAB)/loadcheck/busy/busy.c
	$(GO) test -count 1 -v -timeout 60m -run '^TestCheck' ./$(LAB)/loadcheck -args -full -rounds $(or $(ROUNDS),5) -binary $(CURDIR)/$(BIN) -vegeta $(CURDIR)/bin/vegeta -busy $(CURDIR)/bin/busy

perf: build bin/svc-index-rig ## run load scenarios: SCENARIO=name, or several; without, say what there is
	$(TOOLS)
	@$(GO) build -o bin/perf ./$(LAB)/perf
	@taskset -c 1 bin/perf $(PERF) $(if $(SCENARIO),run $(SCENARIO),list)

CAPTURES ?= hit hot-cold db-cold dht-tail overload:x5 limits:in-flight limits-rate:above slow-loris bomb cache-cold-sweep:sweep dht-flap inter-region:network

captures: build bin/svc-index-rig ## profile the server under every scenario into profiles/captures; 7 minutes (CAPTURES="hit overload:x5" for some)
	@$(GO) build -o bin/perf ./$(LAB)/perf
	taskset -c 1 bin/perf capture $(CAPTURES)

slo-report: build bin/svc-index-rig ## find the rated load, hold it for HOLD (10m), write docs/slo-report.md; PROFILE=name for one
	$(TOOLS)
	@$(GO) build -o bin/perf ./$(LAB)/perf
	taskset -c 1 bin/perf -hold $(or $(HOLD),10m) -profile '$(PROFILE)' $(PERF) slo-report

OUT ?= bin/drill-$(shell date +%Y%m%d-%H%M%S)

drill: bin/svc-index-rig ## take a live server through the runbook, and write what was seen to OUT/report.md; a minute
	@RATE='$(RATE)' testing/drill.sh bin/svc-index-rig '$(OUT)'

clean: ## remove what was built
	rm -rf bin
