# Posthouse's front door.  Everything is built in build/ by Meson.
PYTHON = /usr/bin/python3

.PHONY: all setup build web demo check-fast test-build test test-asan test-tsan mutants bench pictures load coverage fuzz wire hostile format docs dist deb test-packages install uninstall clean

all: build

setup:
	@sh scripts/setup.sh build

# The page, made by npm into web/built, which is kept in the tree: only who changes the page needs npm.
web: web/node_modules/.installed
	@cd web && npm run --silent build >build.log 2>&1 || { cat build.log; exit 1; }
	@rm -f web/build.log

web/node_modules/.installed: web/package-lock.json
	@echo "setup: installing with npm: $$(sed -n '/devDependencies/,/}/s/^    "\(.*\)": .*/\1/p' web/package.json | tr '\n' ' ')"
	@cd web && npm ci --no-audit --no-fund --loglevel=error >/dev/null
	@touch $@

build: setup
	@test -f build/build.ninja || meson setup build $(if $(PREFIX),--prefix=$(PREFIX)) >/dev/null
	@ninja -C build | tail -1

# Posthouse with two relay hosts that demand AUTH; ends by itself without a terminal.
demo:
	@sh scripts/setup.sh demo
	@$(MAKE) --no-print-directory build
	@$(PYTHON) scripts/demo.py

# A build that was configured before the test packages were there has no unit tests.
test-build:
	@sh scripts/setup.sh test
	@test ! -f build/build.ninja || test -d build/tests || meson setup --reconfigure build >/dev/null
	@$(MAKE) --no-print-directory build

# What finds most in two minutes, between edits; ends in one line "N passed, N failed".
check-fast: test-build
	@$(PYTHON) tests/run.py --fast

# Every test; ends in one line "N passed, N failed".
test: test-build
	@$(MAKE) --no-print-directory web/node_modules/.installed
	@$(PYTHON) tests/run.py

# The same tests on a build with sanitizers.
test-asan test-tsan: test-%:
	@sh scripts/setup.sh test
	@$(MAKE) --no-print-directory web/node_modules/.installed
	@test -f build-$*/build.ninja || meson setup build-$* -Db_lundef=false \
	    -Db_sanitize=$(if $(filter asan,$*),address$(comma)undefined,thread) >/dev/null
	@ninja -C build-$* | tail -1
	@POSTHOUSE_BUILD=build-$* $(PYTHON) tests/run.py

# Each defect of tests/wire/mutants put back; the wire simulator must find it.  ARGS='NAME …': these only.
mutants:
	@sh scripts/setup.sh test
	@$(PYTHON) tests/wire/mutants.py $(ARGS)

# BASE=commit: an older build takes turns with this one, and a second table compares them.
bench:
	@sh scripts/setup.sh test
	@$(MAKE) --no-print-directory build
	@base=$(if $(BASE),$$(sh scripts/base.sh $(BASE))) && $(PYTHON) tests/bench/bench.py $${base:+--base $$base}
	@$(PYTHON) tests/bench/lookups.py
	@$(PYTHON) tests/bench/web.py

# The pictures of the README, in docs/images.
pictures:
	@sh scripts/setup.sh test
	@$(MAKE) --no-print-directory build
	@$(PYTHON) tests/web/pictures.py

# Idle sessions by the thousand, a million queued messages, dead relays, ten restarts; some ten minutes and 6 GB of disk.
load:
	@sh scripts/setup.sh test
	@$(MAKE) --no-print-directory build
	@ulimit -n 20000; $(PYTHON) tests/bench/load.py
	@$(PYTHON) tests/bench/restarts.py

# Branches of the spool and of the parsers that tests take; build-cov/.  "-v" as ARGS: which ones are not.
coverage:
	@sh scripts/setup.sh test
	@$(PYTHON) tests/coverage.py $(ARGS)

# Each parser fuzzed for SECONDS, two at a time; what is found is left in build-fuzz/found/.
fuzz:
	@sh scripts/setup.sh test
	@FUZZ_SECONDS=$(or $(SECONDS),300) $(PYTHON) -m pytest -q -s -p no:cacheprovider tests/fuzz

# The simulated wire by hand: the fixed scripts with every fault, then N random scenarios from SEED on.
wire:
	@sh scripts/setup.sh test
	@$(MAKE) --no-print-directory build
	@build/tests/sim_wire -x -n $(or $(N),100000) $(if $(SEED),-s $(SEED))

# Clients that mean harm, to one daemon, for MINUTES; POSTHOUSE_BUILD=build-asan: another build, which is there already.
hostile:
	@sh scripts/setup.sh test
	@$(MAKE) --no-print-directory build
	@$(PYTHON) tests/crash/hostile.py --minutes $(or $(MINUTES),60) $(ARGS)

# The comparisons with Postfix, with that of Debian 13, which debootstrap makes in build-debian13/.  ARGS: these tests only.
.PHONY: compat-13
compat-13:
	@sh scripts/setup.sh test
	@$(MAKE) --no-print-directory build
	@sh scripts/compat13.sh $(ARGS)

format: web/node_modules/.installed
	@clang-format -i $$(git ls-files 'src/*.[ch]' 'tests/*.[ch]')
	@cd web && npm run --silent format >/dev/null

# docs/parameters.md and posthouse-main.cf(5) from the parameter table.
docs: build
	@sh scripts/parameters.sh md > docs/parameters.md
	@sh scripts/parameters.sh man > docs/man/posthouse-main.cf.5

# The source with the built page: it builds without git, node or a network.
dist: web
	@sh scripts/dist.sh

# Debian packages, in build/deb.  RELEASE=trixie, as root: those of that release, in build/deb-trixie.
deb:
	@sh scripts/setup.sh deb
	@$(MAKE) --no-print-directory web
	@sh scripts/deb.sh $(RELEASE)

# The packages in a fresh Debian with systemd, by the words of iRedMail's page, and those of Debian 12 as a container image; as root,
# some minutes.  RELEASE: as above.
test-packages: deb
	@{ command -v debootstrap && command -v systemd-nspawn; } >/dev/null || apt-get install -y -q debootstrap systemd-container >/dev/null
	@$(PYTHON) tests/packages/first_mail.py $(if $(RELEASE),--release $(RELEASE)) $(ARGS)
	@$(if $(RELEASE),true,$(PYTHON) tests/packages/container.py)

# Only installs what "make" has built: DESTDIR=, PREFIX= (when it is configured).
install:
	@test -f build/build.ninja || { echo "make install: build first (make, or make PREFIX=/usr)" >&2; exit 1; }
	@meson install -C build --no-rebuild

uninstall:
	@ninja -C build uninstall

clean:
	rm -rf web/dist web/node_modules build build-asan build-tsan build-cov build-fuzz

comma := ,
