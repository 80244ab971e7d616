# GNU make. Cargo is found on the path or where rustup puts it.
SHELL := /bin/bash
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin

# Passed on to the server (`make run ARGS="--config my.toml"`) or to `cargo test`.
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help run cluster test check bench soak sim fuzz model

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Build for release and serve on 127.0.0.1:8080 with data in ./data
	cargo build --release --locked
	exec "$${CARGO_TARGET_DIR:-./target}/release/listen-stream" serve --data ./data --listen 127.0.0.1:8080 $(ARGS)

cluster: ## Build for release and run three nodes on PostgreSQL and Redis, which it installs if missing
	@scripts/install-test-deps.sh
	cargo build --release --locked
	@exec scripts/cluster.sh

test: ## Run every check and test; installs PostgreSQL and Redis servers for them if missing
	@exec scripts/test.sh $(ARGS)

check: ## Check format and lints
	cargo fmt --check
	cargo clippy --locked --all-targets --all-features -- -D warnings

bench: ## Measure, and print the table of docs/performance.md; takes ARGS="--only idle --rounds 2"
	@scripts/servers.sh cargo bench --locked --bench load -- $(ARGS)

soak: ## Run three nodes while everything fails, 10 minutes unless told; takes SOAK_SECONDS, SEED
	@scripts/install-test-deps.sh
	SOAK_SECONDS="$(or $(SOAK_SECONDS),600)" $(if $(SEED),FAULTS_SEED="$(SEED)") \
	    cargo test --locked --all-features --test soak nothing_is_lost -- --nocapture

sim: ## Run schedules of the simulation, 100,000 unless told; takes SEED, RUNS, KEEP, TRACE (lines), RELEASE=1
	@SIM_SEED="$(SEED)" SIM_RUNS="$(or $(RUNS),100000)" SIM_KEEP="$(KEEP)" SIM_TRACE="$(TRACE)" \
	    cargo test --locked --all-features $(if $(RELEASE),--release) --test sim nothing_is_lost -- --nocapture

fuzz: ## Fuzz what reads input of clients, a minute each; takes SECS, TARGET, KEEP=1
	@SECS="$(SECS)" TARGET="$(TARGET)" KEEP="$(KEEP)" scripts/fuzz.sh

model: ## Check the model of the session protocol in full, some minutes; takes OWN, ALL=1
	@OWN="$(OWN)" ALL="$(ALL)" scripts/model.sh
