# Everything a contributor runs. `make demo` and `make test` need nothing but Python on the machine.
SHELL := /bin/bash
.DEFAULT_GOAL := help
export RMQJOBS_RABBITMQ := $(CURDIR)/.tools/rabbitmq
run := .venv/bin/python -m
# Side by side, and files that take longest first: most of the time they wait for a broker, a clock or each other.
# In CI, whose machines are shared, what failed beside seven others is tried once more alone; what fails twice fails.
need_broker := tests/proof tests/browser tests/faults tests/acceptance tests/broker plugins
with_broker = $(run) pytest -q -n 8 --dist loadfile --no-loadscope-reorder $(need_broker) || { [ -n "$$CI" ] && \
	$(run) pytest -q --last-failed --last-failed-no-failures none $(need_broker); }

.PHONY: help setup broker peers demo dashboard browser test test-4 release faults soak soak-steady bench bench-quick bench-announcing bench-readmodel bench-schedules check unit reference format

help: ## Show this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

setup: ## Make .venv with all dependencies
	@tools/setup

broker: # a RabbitMQ for demo and tests, where none is at hand
	@tools/setup broker

demo: broker ## Take a real video through a real RabbitMQ, and watch what happens to jobs
	@.venv/bin/python examples/demo.py

test: check broker ## Everything: checks, unit tests, and tests against a real RabbitMQ
	@$(with_broker)

test-4: setup ## The tests that need a RabbitMQ, on the newest one that Debian has; as root
	@tools/install-rabbitmq-4 .tools/rabbitmq-4
	@export RMQJOBS_RABBITMQ=$(CURDIR)/.tools/rabbitmq-4; $(with_broker)

browser: broker ## The dashboard in a real Chromium; installs one, as root
	@tools/setup browser
	@$(run) pytest -q tests/browser

dashboard: broker ## The dashboard with lively jobs, until Ctrl-C
	@.venv/bin/python examples/dashboard.py

release: setup broker ## Build wheels, and try them in empty environments with the newest and oldest dependencies
	@tools/release

peers: setup # the systems that we are compared with, and the RabbitMQ that they are compared on
	@tools/setup peers
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then tools/install-rabbitmq-4 .tools/rabbitmq-4; fi

faults: broker peers ## Kill, cut and fill up everything, beside Celery, Dramatiq, taskiq and FastStream: a table of what is lost
	@[ ! -x .tools/rabbitmq-4/rabbitmq-server ] || export RMQJOBS_RABBITMQ=$(CURDIR)/.tools/rabbitmq-4; \
	$(run) tests.faults.matrix --write

soak: broker ## A million jobs, 100,000 dead letters, a blocked broker, a full queue: memory and CPU of each process
	@$(run) tests.faults.soak

soak-steady: broker ## Ten million jobs published and drained at once: memory that stays flat
	@$(run) tests.faults.soak --steady 10000000

bench bench-quick: broker peers ## Beside Celery, Dramatiq, taskiq, FastStream and BullMQ: ratios; `bench` writes the page, `bench-quick` takes two minutes
	@[ ! -x .tools/rabbitmq-4/rabbitmq-server ] || export RMQJOBS_RABBITMQ=$(CURDIR)/.tools/rabbitmq-4; \
	$(run) benchmarks $(if $(filter bench-quick,$@),--quick)

bench-announcing: broker ## What `published` records cost a publisher, with and without in the same run
	@$(run) benchmarks.announcing

bench-readmodel: setup ## How fast the read model takes records, and answers about 300,000 jobs
	@$(run) benchmarks.readmodel 300000

bench-schedules: broker ## The scheduler with 5,000 schedules, 1,000 of them due in one second
	@.venv/bin/python benchmarks/schedules.py

check: setup ## Format, lint, types, import contracts, unit tests; needs no broker
	@$(run) ruff format --check -q .
	@$(run) ruff check -q .
	@$(run) mypy framework plugins/*/src tests/typing tools benchmarks examples
	@.venv/bin/lint-imports --no-cache > .venv/imports.log || { cat .venv/imports.log; exit 1; }
	@$(run) pytest -q -n 2 tests/unit

unit: setup ## Unit tests only
	@$(run) pytest -q -n 2 tests/unit

reference: setup ## Write the generated pages of docs/reference
	@.venv/bin/python tools/reference.py

format: setup ## Format the code and mend what ruff can
	@$(run) ruff check -q --fix . ; $(run) ruff format -q .
