# What people and CI run. Needs a Rust toolchain (https://rustup.rs) and make.

.PHONY: help build demo check test fmt peers envoy-gateway release bench bench-smoke bench-peers bench-swarm

help: ## show this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

build: ## build the `ieum` binary into target/quick/
	cargo build --profile quick --bin ieum

demo: build ## run the bookstore example: http://127.0.0.1:8080/productpage
	target/quick/ieum up examples/bookinfo

check: ## type-check everything, quickly
	cargo check --workspace --all-targets

fmt: ## format the code
	cargo fmt --all

peers: .peers/installed ## install the programs by others that the tests run beside ours

# Quick when they are there; again when the list changes.
.peers/installed: crates/testing/peers.txt
	@python3 -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "make peers needs Python 3 with venv, such as: apt-get install python3-venv" >&2; exit 1; }
	python3 -m venv .peers/venv
	.peers/venv/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

.peers/envoy-gateway:
	git clone --quiet --depth 1 https://github.com/envoyproxy/gateway $@

envoy-gateway: .peers/envoy-gateway ## load Envoy Gateway's own configurations, and say what stands in the way of the rest
	IEUM_ENVOY_GATEWAY=$(CURDIR)/$< cargo test -p ieum-cli --test envoy_gateway -- --nocapture

test: peers ## formatting, lints and all tests
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo test --workspace

release: ## build the fastest `ieum` into target/release/ (takes minutes)
	cargo build --release --bin ieum

bench-swarm: # a thousand sidecars in one process, for the control plane's row
	cargo build --profile quick -p ieum-control --example swarm

# nginx, HAProxy, the load generators and what counts system calls, from the machine's package manager where they are missing.
BENCH_TOOLS = nginx haproxy wrk h2load nghttpd taskset openssl strace
BENCH_PACKAGES = nginx libnginx-mod-stream haproxy wrk nghttp2-client nghttp2-server util-linux openssl strace

bench-peers: peers ## install the programs that the benchmarks compare with
	@for tool in $(BENCH_TOOLS); do command -v $$tool >/dev/null || missing="$$missing $$tool"; done; \
	test -e /usr/lib/nginx/modules/ngx_stream_module.so || missing="$$missing ngx_stream_module"; \
	if [ -n "$$missing" ]; then \
		{ apt-get update -q && apt-get install -y -q --no-install-recommends $(BENCH_PACKAGES); } || \
		{ echo "make bench needs:$$missing; on Debian, as root: apt-get install $(BENCH_PACKAGES)" >&2; exit 1; }; \
	fi

bench: bench-peers release bench-swarm ## measure Ieum beside Envoy, nginx and HAProxy; writes bench/REPORT.md (about 40 min)
	python3 bench/run.py

bench-smoke: bench-peers release ## the main rows, short (about 90 s)
	python3 bench/run.py --smoke
