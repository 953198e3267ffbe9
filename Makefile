# make help lists the targets.
include scripts/packages.mk

VENV ?= .venv
PYTHON = $(VENV)/bin/python
CONFIG ?= /etc/walt/server.conf
VARIANT ?= full

.PHONY: help run stop install assets install-test test test-slow test-system test-release test-lab test-lab-short test-upgrade deb lint bench docs

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 16

run: install ## start a platform in its own network namespace and boot a virtual node
	@$(PYTHON) -m walt.server.tools.quickstart run --config $(CONFIG) --variant $(VARIANT)

stop: ## stop the platform: no process, mount, namespace or table is left
	@$(PYTHON) -m walt.server.tools.quickstart stop --config $(CONFIG)

install: ## install what the server needs: Debian packages and .venv
	@scripts/install-packages $(BASE_PACKAGES) $(SERVER_PACKAGES)
	@scripts/make-accounts $(ACCOUNTS)
	@scripts/make-venv $(VENV) server
	@$(PYTHON) scripts/make_assets.py || echo "The server runs without its web pages."

assets: ## fetch and make what the web pages take from others, if it is missing
	@python3 scripts/make_assets.py

install-test:
	@scripts/install-packages $(BASE_PACKAGES) $(SERVER_PACKAGES) $(TEST_PACKAGES)
	@scripts/make-accounts $(ACCOUNTS)
	@scripts/make-venv $(VENV) server,test
	@$(PYTHON) scripts/make_assets.py

test: install-test ## install what the tests need; style, types, all tests but the long scenarios
	@scripts/run-tests $(VENV)

test-slow: install-test ## run the long scenarios: with "test", these are all tests
	@scripts/run-tests $(VENV) --slow

test-system: install-test ## run the system tests alone, quick and long ones
	@scripts/run-tests $(VENV) --system

test-release: install-test ## run the long scenarios, and what another release of Debian can change
	@scripts/run-tests $(VENV) --release

test-lab: install-test ## run the lab in a box: the product installed on a Debian in QEMU
	@scripts/install-packages $(LAB_PACKAGES)
	@scripts/run-tests $(VENV) --lab

test-lab-short: install-test ## install the product there, boot it, and a board: 15 minutes
	@scripts/install-packages $(LAB_PACKAGES)
	@scripts/run-tests $(VENV) --lab-short

test-upgrade: ## upgrade Debian 12 to 13 below an installed server, in a room: 5 minutes
	@scripts/install-packages python3 git mmdebstrap
	@scripts/clean-room -- scripts/try-debian-upgrade

deb: ## make a Debian package of the server in dist/, as root
	@/usr/bin/python3 scripts/make_deb.py dist

lint: install-test ## style and types
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/mypy

bench: install-test ## measure; results are ratios against limits of the same run
	@for one in bench/*/; do echo "== $$one"; $(PYTHON) -m $$(echo $${one%/} | tr / .) || exit 1; done

docs: install-test ## make the generated pages of docs/
	@$(PYTHON) -m walt.rpc.schema > docs/amp.md
	@$(PYTHON) -m walt.rpc.openapi > docs/openapi.json
