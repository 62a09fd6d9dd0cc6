# Everything runs in a virtual environment of its own, .venv; nothing is installed elsewhere.
#
#   PYTHON=python3.12   which Python to make it with (3.11 or later)
#   PYTEST_ARGS=...     more words for pytest, as in PYTEST_ARGS='-k heap -x'
#   REQUIRE=all         a test that would be skipped fails: pytest --require=all
#   DEMO_ARGS, BENCH_ARGS, KERNELS_ARGS

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules --no-print-directory

# The first Python that is new enough; searched only when something has to be built.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && \
	{ echo $$python; break; }; done)

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PYTEST := $(BIN)/python -m pytest $(if $(REQUIRE),--require=$(REQUIRE))
SOURCES := pyproject.toml setup.py pagescan/native/_build.py $(wildcard pagescan/native/*.[ch] pagescan/native/include/*.h)
SOURCES := $(filter-out pagescan/native/_shim.c,$(SOURCES))
C_FILES = $(filter-out pagescan/native/_shim.c,$(wildcard pagescan/native/*.[ch] pagescan/native/include/*.h tests/*/*.[ch] benchmarks/*.[ch]))

.PHONY: help prereqs dev build demo test unit live lint ruff format type layers spell man docs \
	reference screens prose cformat \
	fmt asan lowest kernels bench dist wheels pyz clean

help: ## print this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | \
		while IFS=$$'\t' read -r target words; do printf '  %-9s%s\n' "$$target" "$$words"; done

dev: $(VENV)/lint.stamp ## the environment for work on pagescan: editable, with tests and linters

build: $(VENV)/run.stamp ## the environment that runs pagescan

demo: $(VENV)/run.stamp ## watch a workload that knows what it writes: pages found, missed, extra
	@$(BIN)/pagescan demo $(DEMO_ARGS)

test: $(VENV)/test.stamp ## all tests, on live processes too
	@$(PYTEST) $(PYTEST_ARGS)

unit: $(VENV)/test.stamp ## the tests that need no other process
	@$(PYTEST) $(wildcard tests/unit tests/property tests/golden tests/contracts) $(PYTEST_ARGS)

live: $(VENV)/test.stamp ## the tests on live processes
	@$(PYTEST) $(wildcard tests/live tests/refusal tests/leak) $(PYTEST_ARGS)

# ---- checks of the text ---------------------------------------------------------------------

lint: ruff format type layers spell man reference prose ## all checks of the text; make -k lint shows all findings

ruff: $(VENV)/lint.stamp
	@$(BIN)/ruff check .

format: $(VENV)/lint.stamp
	@$(BIN)/ruff format --check .

type: $(VENV)/lint.stamp ## mypy, strict
	@$(BIN)/mypy

layers: $(VENV)/lint.stamp ## which module may import which
	@$(BIN)/lint-imports

spell: $(VENV)/lint.stamp
	@$(BIN)/codespell

docs: $(VENV)/lint.stamp ## docs/api.md, from the docstrings
	@$(BIN)/python docs/make_api.py

screens: $(VENV)/run.stamp ## the screens in README and guide again, as root, with redis, java and tmux
	@$(BIN)/python docs/make_screens.py $(SCREENS)

reference: $(VENV)/lint.stamp
	@$(BIN)/python docs/make_api.py --check

man: ## check the manual page with mandoc
	@command -v mandoc >/dev/null || { echo 'make: missing: mandoc' >&2; \
		echo 'hint: apt install mandoc    (Debian, Ubuntu)' >&2; exit 1; }
	@found=$$(mandoc -T lint -W style man/pagescan.1 2>&1 | \
		grep -v -e 'referenced manual not found' -e 'outdated mandoc.db' || true); \
		[[ -z $$found ]] || { echo "$$found" >&2; exit 1; } # the left out ones are not about the page

prose: $(VENV)/lint.stamp ## sentences that are hard to read: advice, never an error
	@$(BIN)/python docs/check_prose.py || true

cformat: ## what clang-format would do to the C files: advice, never an error
	@clang-format --dry-run $(C_FILES) || true

fmt: $(VENV)/lint.stamp ## format the Python files
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix --select I .

# ---- other ways to run it -------------------------------------------------------------------

copy_tree := tar --exclude=./.git --exclude=./.venv --exclude=./.asan --exclude=./.lowest \
	--exclude='*.so' -cf - . | tar -xf -

# It runs in a copy of the tree, so that the editable install keeps its own shim. The libraries of the
# sanitizers have to be loaded before Python, whichever process starts it (also the keeper), and into
# no other program that the tests start. So the venv's python is a script that preloads them, and a
# .pth file removes the variable again.
ASAN_TESTS ?= $(wildcard tests/unit tests/property tests/native tests/live tests/refusal)
ASAN_FLAGS := -g -fno-omit-frame-pointer -fsanitize=address,undefined
ASAN := .asan/venv/bin
asan: prereqs ## the tests with the shim under AddressSanitizer and UBSan
	@rm -rf .asan/tree && mkdir -p .asan/tree
	@$(copy_tree) -C .asan/tree
	@[[ -x $(ASAN)/plain ]] || { $(PYTHON) -m venv --clear .asan/venv; \
		ln -s "$$(readlink -f $(ASAN)/python)" $(ASAN)/plain; }
	@cd .asan/tree && PAGESCAN_CFLAGS='$(ASAN_FLAGS)' \
		PAGESCAN_LDFLAGS='-fsanitize=address,undefined' \
		../venv/bin/plain -m pip --disable-pip-version-check --quiet install -e '.[test]'
	@echo 'import os; os.environ.pop("LD_PRELOAD", None)' \
		>"$$($(ASAN)/plain -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/asan.pth"
	@rm -f $(ASAN)/python
	@printf '%s\n' '#!/bin/bash' \
		"export LD_PRELOAD=$$(gcc -print-file-name=libasan.so)" \
		'export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1' \
		"export PAGESCAN_CFLAGS='$(ASAN_FLAGS)'" \
		'export UBSAN_OPTIONS=halt_on_error=1:abort_on_error=1:print_stacktrace=1' \
		"exec -a \"\$$0\" '$$(readlink -f $(ASAN)/plain)' \"\$$@\"" >$(ASAN)/python
	@chmod +x $(ASAN)/python
	@cd .asan/tree && "$$OLDPWD/$(ASAN)/python" -m pytest $(ASAN_TESTS) $(PYTEST_ARGS)

# The lowest versions that pyproject.toml allows, to build and to run; also in a copy of the tree.
LOWEST_TESTS ?= tests
LOWEST := import tomllib; project = tomllib.load(open("pyproject.toml", "rb")); \
	words = project["build-system"]["requires"] + project["project"]["dependencies"]; \
	print(*(word.replace(">=", "==") for word in words), sep="\n")
lowest: prereqs ## the tests with the lowest versions of the packages that pagescan needs
	@rm -rf .lowest/tree && mkdir -p .lowest/tree
	@$(copy_tree) -C .lowest/tree
	@[[ -x .lowest/venv/bin/python ]] || $(PYTHON) -m venv --clear .lowest/venv
	@.lowest/venv/bin/python -c '$(LOWEST)' >.lowest/versions
	@echo "make: with $$(sort -u .lowest/versions | paste -sd ' ')" >&2
	@cd .lowest/tree && export PIP_CONSTRAINT=$(CURDIR)/.lowest/versions && \
		PIP_BUILD_CONSTRAINT=$$PIP_CONSTRAINT ../venv/bin/python -m pip \
		--disable-pip-version-check --quiet install -e '.[test]'
	@cd .lowest/tree && ../venv/bin/python -m pytest $(LOWEST_TESTS) $(PYTEST_ARGS)

# QEMU is a package of the distribution; the kernels are stored in ~/.cache/pagescan-kernels.
kernels: $(VENV)/test.stamp ## the tests under other kernels, in QEMU; KERNELS_ARGS='--only 6.17'
	@command -v qemu-system-x86_64 >/dev/null || \
		apt-get -qq -y install --no-install-recommends qemu-system-x86 >/dev/null || { \
		echo 'make: missing: qemu-system-x86_64' >&2; \
		echo 'hint: apt install qemu-system-x86    (Debian, Ubuntu)' >&2; exit 1; }
	@$(BIN)/python -m tests.kernels.run $(if $(REQUIRE),--require=$(REQUIRE)) $(KERNELS_ARGS)

bench: $(VENV)/bench.stamp ## the benchmarks, with the words of BENCH_ARGS
	@$(BIN)/python benchmarks/run.py $(BENCH_ARGS)

dist: $(VENV)/lint.stamp ## build the sdist, and the wheel from it, in dist/
	@rm -rf dist build
	@$(BIN)/python -m build --outdir dist .

wheels: $(VENV)/wheels.stamp ## build and check wheels for manylinux and musllinux, in dist/
	@$(BIN)/python packaging/wheels.py

pyz: $(VENV)/wheels.stamp ## dist/pagescan.pyz: one file that runs by itself; after make wheels
	@ls dist/*manylinux*.whl >/dev/null 2>&1 || $(MAKE) wheels
	@$(BIN)/python packaging/single_file.py

clean: ## remove everything that was built, with .venv
	rm -rf .venv .asan .lowest build dist *.egg-info pagescan/native/_shim.c pagescan/native/*.so
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ---- the environment ------------------------------------------------------------------------

# One stamp per set of packages. If it is older than a source, the packages are installed and the
# shim is built again.
define install
	@$(prerequisites)
	@$(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@echo 'make: installing pagescan$(1) into $(VENV)' >&2
	@$(PIP) install --editable '.$(1)' || { echo 'make: pip could not install it: see above;' \
		'without a way to PyPI, name a mirror in PIP_INDEX_URL' >&2; exit 1; }
	@mkdir -p $(VENV)/share/man/man1 # man(1) searches there, by PATH; editable installs leave the page out
	@ln -sf ../../../../man/pagescan.1 $(VENV)/share/man/man1/
	@touch $(2)
endef

$(VENV)/run.stamp: $(SOURCES)
	$(call install,,$@)

$(VENV)/bench.stamp: $(SOURCES)
	$(call install,[bench],$@ $(VENV)/run.stamp)

$(VENV)/wheels.stamp: $(SOURCES)
	$(call install,[wheels],$@ $(VENV)/run.stamp)

$(VENV)/test.stamp: $(SOURCES)
	$(call install,[test],$@ $(VENV)/run.stamp)

$(VENV)/lint.stamp: $(SOURCES)
	$(call install,[test$(comma)arrays$(comma)lines$(comma)exporter$(comma)fleet$(comma)lint],$@ $(VENV)/test.stamp $(VENV)/run.stamp)

comma := ,

# Before anything is built: names all missing packages, and the command that installs them.
define prerequisites
	python='$(PYTHON)'; apt=''; dnf=''; cc=cc; \
	lacks() { echo "make: missing: $$1" >&2; apt+=" $$2"; dnf+=" $$3"; }; \
	package=$${python##*/}; [[ $$package == python3.* ]] || package=python3; \
	if [[ -z $$python ]] && command -v python3 >/dev/null; then \
		lacks "Python 3.11 or later, this is $$(python3 -V 2>&1)" \
			'python3.11 python3.11-venv python3.11-dev' 'python3.11 python3.11-devel'; \
		echo 'hint: name another Python as in: make PYTHON=/opt/bin/python3.12' >&2; \
	elif ! "$${python:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
			2>/dev/null; then \
		lacks "Python 3.11 or later$${python:+, not PYTHON=$$python}" \
			'python3 python3-venv python3-dev' 'python3 python3-devel'; \
	else \
		"$$python" -c 'import venv, ensurepip' 2>/dev/null || \
			lacks "the venv module of $$python" $$package-venv $$package; \
		headers=$$("$$python" -c 'import sysconfig; print(sysconfig.get_path("include"))'); \
		[[ -f $$headers/Python.h ]] || \
			lacks "Python.h of $$python" $$package-dev $$package-devel; \
		cc=$$("$$python" -c 'import sysconfig; print(sysconfig.get_config_var("CC"))'); \
	fi; \
	cc=$${CC:-$$cc}; cc=$${cc%% *}; \
	if ! command -v "$$cc" >/dev/null; then \
		lacks "a C compiler ($$cc)" 'gcc libc6-dev' gcc; \
	elif ! echo '#include <stdio.h>' | "$$cc" -E -x c - >/dev/null 2>&1; then \
		lacks 'stdio.h of the C library' libc6-dev glibc-devel; \
	fi; \
	if [[ -n $$apt ]]; then \
		echo "hint: apt install$$apt    (Debian, Ubuntu)" >&2; \
		echo "hint: dnf install$$dnf    (Fedora)" >&2; \
		exit 1; \
	fi
endef

prereqs:
	@$(prerequisites)
