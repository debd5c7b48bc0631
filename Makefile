# Everything that is done with the project; `make help` lists it. What is needed is installed first:
# Debian packages (as root), Python packages into .venv, crates.

PREFIX ?= /usr/local
DESTDIR ?=
CARGO ?= cargo
PYTHON ?= python3
DEMO_ARGS ?=
BENCH_ARGS ?=
GPU_ARGS ?=
MINUTES ?= 5
MEMCHECK ?=

ifneq ($(words $(CURDIR)),1)
$(error this folder's path has a space in it, which make and pkg-config can't handle: $(CURDIR))
endif

VERSION := $(shell sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
SOVERSION := 0
VENV := .venv
BENCH_VENV := tools/bench/.venv
SERVING_CLIENT := $(VENV)/serving-client
PIP := bin/pip --disable-pip-version-check
BENCH = $(CARGO) run --release --quiet --package session-group-bench --
PKG_CONFIG ?= $(CURDIR)/scripts/pkg-config
export PKG_CONFIG
# TensorFlow's own chatter.
export TF_CPP_MIN_LOG_LEVEL ?= 2
# mimalloc says when it was compiled: the same sources give the same library.
export SOURCE_DATE_EPOCH ?= $(shell packaging/date.sh)
# What `make test` runs, or one of them by PART=.
PARTS := rust c python server processor
PART ?= $(PARTS)
# What Cargo builds. Tests set it to all that they need, so that it is all built with the same features of
# dependencies, and so once.
SCOPE ?=

.DEFAULT_GOAL := help
.PHONY: help demo test $(addprefix test-,$(PARTS)) test-debug bench bench-quick bench-memory bench-overhead bench-server \
  bench-processor bench-scaling sharing scaling-kit bench-models gpu-check gpu-kit nightly soak soak-server fuzz asan asan-serving tsan memcheck dispatches coverage supply-chain \
  reproducible tensorflow system-packages build install deb image dist package-test wheel server serve processor \
  install-serving models header man docs lint requirements clean

help: ## Show this list
	@sed -n -e 's/^## \(.*\)/\n\1/p' -e 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

## Start here

demo: tensorflow models ## Serve a real model with 1 session, N sessions and a group, and compare
	$(CARGO) run --release --quiet --package session-group-demo -- $(DEMO_ARGS)

test: $(addprefix test-,$(PART)) ## Run all tests, or of one part: PART=rust, c, python, server or processor

test $(addprefix test-,$(PARTS)): SCOPE := --workspace --lib --bins --tests

# In one profile, so that what tests, tools and packages depend on is compiled once; `make test-debug` has the
# checks of the other one.
test-rust: tensorflow models
	$(CARGO) test --release --workspace

test-c: build models
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" c_tests/run.sh

test-python: wheel models target/libtest_gpu.so
	python/tests/run.sh

test-server: server models $(SERVING_CLIENT)
	crates/model-server/tests/run.sh

test-processor: build processor models
	crates/processor/tests/run.sh

## Build and install

build: tensorflow ## Build the library
	$(CARGO) build --release $(SCOPE)

install: ## Install library, headers, pkg-config and CMake files to $(DESTDIR)$(PREFIX)
	@test -e target/release/libsession_group.so || { echo "run \`make build\` first" >&2; exit 1; }
	scripts/install.sh target/release "$(DESTDIR)" "$(PREFIX)" $(VERSION) $(SOVERSION)

server: tensorflow ## Build the model server, target/release/session_group_model_server
	$(CARGO) build --release $(or $(SCOPE),--package session-group-server)

serve: server models $(SERVING_CLIENT) ## Serve the demo model to TensorFlow Serving's clients
	crates/model-server/serve.sh

processor: tensorflow ## Build the processor, target/release/libserving_processor.so
	$(CARGO) build --release $(or $(SCOPE),--package session-group-processor)

install-serving: ## Install the processor and the model server there, too, as far as they are built
	scripts/install-serving.sh target/release "$(DESTDIR)" "$(PREFIX)"

wheel: build $(VENV)/installed ## Make a wheel of the Python package, in target/wheel
	scripts/wheel.sh target/release target/wheel

deb: build server processor $(VENV)/installed ## Make Debian packages, in target/deb
	packaging/deb.sh target/deb $(VERSION) $(SOVERSION)

image: deb ## Make an OCI image of the model server from the packages, in target/image.tar (as root)
	packaging/image.sh target/deb target/image.tar

dist: build server processor $(VENV)/installed ## Make tarballs of the sources and of the installed tree, in target/dist
	packaging/dist.sh target/dist $(VERSION) $(SOVERSION)

docs: tensorflow ## Make the references of the headers and of the crate, in target/docs
	@command -v doxygen >/dev/null || packaging/need.sh doxygen
	rm -rf target/docs
	mkdir -p target/docs
	VERSION=$(VERSION) doxygen docs/Doxyfile
	RUSTDOCFLAGS="--deny warnings" $(CARGO) doc --release --package session-group --no-deps --quiet
	cp -r target/doc target/docs/crate
	@echo "target/docs/headers/index.html, target/docs/crate/session_group/index.html"

## Measure

bench: bench-models ## Compare groups with stock TensorFlow, ONNX Runtime and OpenVINO, about 80 minutes
	$(BENCH) $(BENCH_ARGS)

bench-quick: bench-models ## The same with fewer models and rounds, under 3 minutes
	$(BENCH) --quick $(BENCH_ARGS)

bench-memory: bench-models models/build/bench/large_variables/model.json ## Compare memory and time to load of groups of 1 and 8
	$(BENCH) memory $(BENCH_ARGS)

bench-overhead: build models ## What a request costs beside its graph: nanoseconds, instructions
	tools/bench/overhead.sh
	$(CARGO) bench --bench requests

bench-server: server models ## Requests through the server against the group in process, and gRPC C++ with a stock session
	crates/model-server/benches/grpc_cpp/build.sh
	$(CARGO) bench --quiet --package session-group-server --bench server -- $(BENCH_ARGS)

bench-processor: processor ## How long requests wait for deltas of a large table
	$(VENV)/bin/python crates/processor/benches/deltas.py $(BENCH_ARGS)

gpu-check: tensorflow $(VENV)/installed ## On a GPU, compare groups with many streams with one stream and processes (GPU_ARGS=--dry-run)
	tools/bench/gpu-check.sh $(GPU_ARGS)

gpu-kit: $(VENV)/installed bench-models ## Make parts below 60 MiB that do this on a GPU without network or TensorFlow, in target/gpu-kit
	tools/bench/kit/gpu-kit.sh

bench-scaling: bench-models ## Requests a second on 1, 2, 4, ... and all CPUs, and the efficiency per CPU
	$(BENCH) scaling $(BENCH_ARGS)

sharing: build server models $(SERVING_CLIENT) ## Count stores to cache lines that threads share, under QEMU; fails above limits
	tools/sharing/sharing.sh $(SHARING_ARGS)

scaling-kit: bench-models ## Pack bench-scaling for a machine without network or compiler, in parts below 60 MiB: target/kits
	$(CARGO) build --release --quiet --package session-group-bench
	tools/bench/kit/scaling.sh target/kits

## Check before a change lands

lint: tensorflow $(VENV)/installed docs ## Check formatting and lints, warnings denied
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --workspace --all-targets --quiet -- --deny warnings
	RUSTDOCFLAGS="--deny warnings" $(CARGO) doc --release --workspace --no-deps --document-private-items --quiet
	$(VENV)/bin/clang-format --dry-run --Werror include/*.hpp src/tensorflow/cpp/*/* c_tests/*.c c_tests/*.cc c_tests/*.h c_tests/unlinked/*.c c_tests/test_gpu/*.cc c_tests/test_op/*.cc c_tests/protobuf/*.cc c_tests/protobuf/*.h examples/*/*.cc examples/*/*.c examples/*/*.h tools/bench/*.cc tools/bench/kit/*.c tools/sharing/*.c tools/sharing/*.cc crates/model-server/benches/grpc_cpp/*.cc crates/processor/c_tests/*
	$(VENV)/bin/ruff check --quiet models scripts tools/bench/models tools/bench/kit tools/sharing python examples crates fuzz
	$(VENV)/bin/ruff format --quiet --check models scripts tools/bench/models tools/bench/kit tools/sharing python examples crates fuzz
	cd python && ../$(VENV)/bin/mypy

package-test: deb image dist models ## Use packages, image and tarball as a stranger would, in a minimal Debian (as root)
	packaging/dist-test.sh target/dist models/build
	packaging/deb-test.sh target/deb models/build
	packaging/image-test.sh target/image.tar models/build

header: tensorflow ## Generate include/session_group.h and crates/processor/include/serving_processor.h
	UPDATE_HEADER=1 $(CARGO) test --release --quiet --test header the_committed_header
	UPDATE_HEADER=1 $(CARGO) test --release --quiet --package session-group-processor --test header the_committed_header

man: tensorflow ## Generate the model server's manual page, crates/model-server/man
	UPDATE_MAN=1 $(CARGO) test --release --quiet $(or $(SCOPE),--package session-group-server --lib) -- the_committed_manual_page

## Check for hours

nightly: ## All of these, one after the other (MINUTES=30 for fuzz and soak, each)
	scripts/nightly.sh

# With one arena, memory that is free lies in few enough pieces to see what grows.
soak: tensorflow models ## A long time of everything at once (MINUTES=60; 5 by default)
	MALLOC_ARENA_MAX=1 MINUTES=$(MINUTES) $(CARGO) test --release --test soak -- --ignored --nocapture

soak-server: server models $(SERVING_CLIENT) ## The same for the server: storage, models and clients that fail (MINUTES=30, 5 by default; CLIENTS=64)
	MINUTES=$(MINUTES) CLIENTS=$(CLIENTS) crates/model-server/tests/run.sh -n 0 -k test_soak

fuzz: build models ## Fuzz grammar, options, C ABI, graphs, SavedModels, server, processor, and answers against stock TensorFlow (MINUTES=60; 5 by default)
	fuzz/run.sh $(MINUTES)

asan: tensorflow models ## Run Rust tests with AddressSanitizer and LeakSanitizer, the C++ shim included
	scripts/sanitize.sh address

asan-serving: $(SERVING_CLIENT) tensorflow models ## Run tests of server and processor with AddressSanitizer
	scripts/sanitize-serving.sh

tsan: tensorflow models ## The Rust tests with ThreadSanitizer
	scripts/sanitize.sh thread

memcheck: build models ## Run C programs under Valgrind (MEMCHECK="run stats"; all by default)
	scripts/memcheck.sh $(MEMCHECK)

test-debug: tensorflow models ## Run the Rust tests with debug assertions and overflow checks
	$(CARGO) test --workspace

dispatches: tensorflow ## Let each policy choose 2^33 times, about ten minutes
	$(CARGO) test --release --lib -- --ignored --nocapture dispatches_beyond_32_bits

coverage: tensorflow models ## Report which lines of Rust and C++ the tests run
	scripts/coverage.sh

supply-chain: ## Check licences, sources and linked crates; list all components
	scripts/supply-chain.sh

reproducible: tensorflow ## Build the library twice and compare
	scripts/reproducible.sh

## Make what others need

tensorflow: third_party/tensorflow/lib/pkgconfig/tensorflow.pc ## Install the pinned stock TensorFlow, unless pkg-config finds one

models: tensorflow models/build/done ## Export the models of the tests and the demo

bench-models: tensorflow models/build/bench/done ## Export the models of the benchmark

requirements: ## Pin requirements.in and tools/bench/requirements.in anew, with hashes
	$(PYTHON) -m venv target/pip-tools
	target/pip-tools/bin/pip install --quiet pip-tools
	for dir in . tools/bench; do \
	  target/pip-tools/bin/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras \
	    --no-emit-index-url --no-emit-find-links --no-header \
	    --output-file $$dir/requirements.txt $$dir/requirements.in || exit; \
	done

clean: ## Remove all that was built or installed in this folder
	rm -rf target $(VENV) $(BENCH_VENV) third_party/tensorflow models/build

# What tensorflow-sys and the scripts need beside Rust, g++, make and Python: a second run finds it.
system-packages:
	@scripts/system-packages.sh

$(VENV)/installed: requirements.txt | system-packages
	@echo "Installing TensorFlow and tools into $(VENV), about 280 MB to download:"
	$(PYTHON) -m venv $(VENV)
	$(VENV)/$(PIP) install --require-hashes --progress-bar on -r requirements.txt
	@touch $@

# Beside the TensorFlow that is there: it would bring another one.
$(SERVING_CLIENT): crates/model-server/tests/requirements.txt $(VENV)/installed
	$(VENV)/$(PIP) install --quiet --no-deps --require-hashes -r crates/model-server/tests/requirements.txt
	@touch $@

third_party/tensorflow/lib/pkgconfig/tensorflow.pc: requirements.txt scripts/lay-tensorflow.py | system-packages
	@if pkg-config --exists 'tensorflow >= 2'; then \
	  echo "Building with the TensorFlow that pkg-config finds: $$(pkg-config --modversion tensorflow)"; \
	else \
	  $(MAKE) --no-print-directory $(VENV)/installed && \
	  $(VENV)/bin/python scripts/lay-tensorflow.py third_party/tensorflow; \
	fi

# GPUs for tests.
target/libtest_gpu.so: c_tests/test_gpu/test_gpu.cc | tensorflow
	@mkdir -p target
	g++ -std=c++17 -O2 -fPIC -shared $$($(PKG_CONFIG) --cflags tensorflow | sed 's/-I/-isystem /g') $< -o $@ \
	  $$($(PKG_CONFIG) --libs tensorflow)

models/build/done: models/make.py $(VENV)/installed
	@echo "Exporting models (a few seconds):"
	@$(VENV)/bin/python models/make.py models/build 2>&1 | grep "^made"
	@touch $@

$(BENCH_VENV)/installed: tools/bench/requirements.txt | system-packages
	@echo "Installing ONNX Runtime and OpenVINO into $(BENCH_VENV), about 110 MB to download:"
	$(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_VENV)/$(PIP) install --require-hashes --progress-bar on -r tools/bench/requirements.txt
	@touch $@

models/build/bench/done: $(filter-out %/large_variables.py,$(wildcard tools/bench/models/*.py)) $(VENV)/installed $(BENCH_VENV)/installed
	@echo "Exporting the models of the benchmark (about 20 seconds):"
	@out=$$($(VENV)/bin/python tools/bench/models/tensorflow_models.py models/build/bench 2>&1) || \
	  { echo "$$out" >&2; exit 1; }; echo "$$out" | grep "^made"
	@$(BENCH_VENV)/bin/python tools/bench/models/onnx_models.py models/build/bench
	@touch $@

models/build/bench/large_variables/model.json: tools/bench/models/large_variables.py $(VENV)/installed
	@echo "Exporting the model of 3.5 GB (about 30 seconds):"
	@out=$$($(VENV)/bin/python $< models/build/bench 2>&1) || \
	  { echo "$$out" >&2; exit 1; }; echo "$$out" | grep "^made"
