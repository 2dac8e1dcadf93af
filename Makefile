# What people and CI run. Needs a Rust toolchain (https://rustup.rs) and make.

.PHONY: help build demo check test fmt

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

test: ## formatting, lints and all tests
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo test --workspace
