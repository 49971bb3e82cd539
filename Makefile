# Two commands do everything on a fresh machine: `make demo` and `make test`.
# They install what is missing and say so. Needed beforehand: Rust, Python 3.11, Node 20, make.

CARGO ?= cargo
export CARGO_TERM_COLOR ?= never
# Where Cargo builds.
TARGET := $(or $(CARGO_TARGET_DIR),target)
# Where `make install` puts things, below DESTDIR if that is set, and the binary that it takes.
PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
BINARY ?= $(TARGET)/release/tidegate

.PHONY: help demo test setup setup-tests check unit units it fuzz-smoke fuzz peers monitoring docs man reference bench bench-instructions loadtest loadtest-quick release pgo install deb test-systemd clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

demo: setup ## Build and run Tidegate on 127.0.0.1:8080 in front of three demo MCP servers
	$(CARGO) build --quiet
	@exec $(TARGET)/debug/tidegate demo

test: setup-tests check units docs unit it fuzz-smoke peers monitoring ## Run all tests
	@echo "all tests passed"

setup: ## Install what the build lacks
	@tools/setup.sh

setup-tests: ## Install what the build and the tests lack
	@tools/setup.sh --tests

check: ## Format and lints
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --quiet -- -D warnings

unit: ## Unit, property and simulation tests, and the tests on the tree itself
	$(CARGO) test --workspace --quiet --lib --bins
	$(CARGO) test --quiet --test sim --test tidy --test parsers --test alloc

units: ## What systemd thinks of the units, as `make install` writes them
	tests/systemd/verify.sh

it: ## Integration tests: the real binary, scripted servers, on loopback
	$(CARGO) test --quiet --test it

fuzz-smoke: ## Random inputs to the parsers, for under a minute
	TIDEGATE_FUZZ_SECONDS=5 $(CARGO) test --quiet --test parsers -- properties
	TIDEGATE_FUZZ_SECONDS=3 $(CARGO) test --quiet --lib -- peek::tests::properties

fuzz: ## The same for hours: TIDEGATE_FUZZ_SECONDS each, 3600 unless set (see tests/fuzz/README.md)
	tests/fuzz/run.sh

docs: ## The documentation builds without a warning
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --quiet --no-deps --workspace --document-private-items

man: ## Write docs/tidegate.8 anew, from the command line's own words
	TIDEGATE_WRITE_MAN=1 $(CARGO) test --quiet --test tidy -- man::

reference: ## Write docs/configuration.md anew, from the schema of the configuration
	TIDEGATE_WRITE_REFERENCE=1 $(CARGO) test --quiet --test tidy -- reference::

peers: ## Real SDK servers and clients, and the official conformance suite, direct and through Tidegate
	tests/sdk/setup.sh
	$(CARGO) build --quiet --bins --examples
	tests/sdk/run.py all --tidegate $(TARGET)/debug/tidegate

monitoring: ## Rules, dashboard and log pipelines of conf/, with a real Prometheus
	tests/monitoring/setup.sh
	$(CARGO) build --quiet --bins
	.cache/monitoring/py/bin/python tests/monitoring/check.py --tidegate $(or $(CARGO_TARGET_DIR),target)/debug/tidegate

bench: setup ## Times of the parts and of a whole call, in a few minutes (see benches/README.md)
	$(CARGO) bench --bench parse --bench session --bench pick --bench limit --bench scrape --bench inproc -- --warm-up-time 0.5 --measurement-time 2 --noplot --discard-baseline

bench-instructions: setup ## Instructions that the parts take, counted by Valgrind
	benches/instructions.sh

loadtest: pgo ## Side by side with nginx, HAProxy and Envoy, over an hour with the build, into loadtest/results
	loadtest/run.py --tidegate $(TARGET)/pgo/tidegate

loadtest-quick: setup ## The same in five minutes, fewer scenarios, with the binary of make release
	$(CARGO) build --release --workspace
	loadtest/setup.sh
	loadtest/run.py --quick

release: setup ## The optimised binary, release/tidegate where Cargo builds
	TIDEGATE_COMMIT=$$(git rev-parse --short=12 HEAD 2>/dev/null) $(CARGO) build --release

pgo: setup ## The same with a profile of its own load, pgo/tidegate where Cargo builds: less CPU, twenty minutes
	$(CARGO) build --release --package loadtest
	tools/setup.sh --pgo
	loadtest/setup.sh
	tools/pgo.sh

install: ## Install what `make release` has built, or BINARY=target/pgo/tidegate (DESTDIR, PREFIX, SYSCONFDIR)
	install -D -m 755 $(BINARY) $(DESTDIR)$(PREFIX)/bin/tidegate
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system $(DESTDIR)$(PREFIX)/share/doc/tidegate
	for unit in tidegate.service tidegate.socket; do \
	    sed 's|/usr/bin/tidegate|$(PREFIX)/bin/tidegate|; s|/usr/share/|$(PREFIX)/share/|; s|/etc/|$(SYSCONFDIR)/|' \
	        systemd/$$unit > $(DESTDIR)$(PREFIX)/lib/systemd/system/$$unit; done
	install -D -m 644 systemd/tidegate.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/tidegate.conf
	install -D -m 644 systemd/tidegate.tmpfiles $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/tidegate.conf
	install -D -m 644 systemd/tidegate.logrotate $(DESTDIR)$(SYSCONFDIR)/logrotate.d/tidegate
	install -D -m 644 docs/tidegate.8 $(DESTDIR)$(PREFIX)/share/man/man8/tidegate.8
	install -m 644 docs/*.md conf/full.yaml conf/schema.json CHANGELOG.md LICENSE $(DESTDIR)$(PREFIX)/share/doc/tidegate
	install -d $(DESTDIR)$(PREFIX)/share/doc/tidegate/examples
	install -d $(DESTDIR)$(PREFIX)/share/doc/tidegate/images
	install -m 644 docs/images/* $(DESTDIR)$(PREFIX)/share/doc/tidegate/images
	install -m 644 docs/examples/* $(DESTDIR)$(PREFIX)/share/doc/tidegate/examples
	find conf/prometheus conf/grafana conf/elk conf/kubernetes -type f | while read -r file; do \
	    install -D -m 644 $$file $(DESTDIR)$(PREFIX)/share/doc/tidegate/examples/$${file#conf/}; done
	test -e $(DESTDIR)$(SYSCONFDIR)/tidegate/tidegate.yaml || \
	    install -D -m 644 conf/minimal.yaml $(DESTDIR)$(SYSCONFDIR)/tidegate/tidegate.yaml

deb: pgo ## The Debian package of the binary of make pgo, in debian/ where Cargo builds
	CARGO_TARGET_DIR=$(abspath $(TARGET))/pgo tools/deb.sh --no-build --output $(abspath $(TARGET))/debian/ \
	    --target $$(rustc -vV | sed -n 's/^host: //p')

test-systemd: ## A real systemd in a folder runs, reloads, upgrades and kills the unit (root, Debian)
	$(CARGO) build --quiet
	tests/systemd/run.sh $(TARGET)/debug/tidegate

clean: ## Remove what was built and installed here
	$(CARGO) clean
	rm -rf .cache
