# The two commands to know: `make up` runs Rabbitry here, `make test` tests it.
# ARGS is passed on:  make up ARGS="--web-port 9000"   make test ARGS="tests/amqp -k table"

VENV := .venv
PYTHON := $(VENV)/bin/python
MAKEFLAGS += --no-print-directory

# What runs on Windows and macOS, too: all but crawling and grading.
PORTABLE := $(wildcard src/rabbitry/*.py src/rabbitry/apps/*.py) \
	$(addprefix src/rabbitry/,amqp apps/monitor apps/workqueue broker cli flow runtime telemetry testing web) tests/portable

.PHONY: up test check format faults bench bench-client bench-broker bench-fairness bench-flow bench-crawl bench-dashboard bench-grading coverage docs pictures dist lock clean

# The shell becomes rabbitry, so a Ctrl-C is answered by rabbitry alone.
up: $(VENV)/.up
	@exec $(VENV)/bin/rabbitry up $(ARGS)

# With RABBITRY_STRICT=1 a test fails, and is not skipped, where a program that it needs is missing.
# Eight processes share the tests, a file at a time: on two cores too, since most tests wait for programs that they
# started. In one, to debug:  make test ARGS="-n 0 --pdb tests/amqp"
test: $(VENV)/.dev
	@scripts/system-deps
	@exec env -u PYTHONDONTWRITEBYTECODE $(PYTHON) -m pytest -n 8 --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(VENV)/.dev
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/mypy --platform win32 --cache-dir .mypy_cache/win32 $(PORTABLE)
	$(VENV)/bin/mypy --platform darwin --cache-dir .mypy_cache/darwin $(PORTABLE)
	$(VENV)/bin/lint-imports
	$(PYTHON) scripts/check_types.py

format: $(VENV)/.dev
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

# The long tests that break things, and the test of a fresh clone.
faults: $(VENV)/.dev
	@RABBITRY_STRICT=1 scripts/system-deps
	@RABBITRY_STRICT=1 exec $(PYTHON) -m pytest -m "faults or fresh_clone" $(ARGS)

# All benchmarks, or those named:  make bench ARGS=client
bench: $(VENV)/.dev
	@scripts/system-deps bench
	@exec $(PYTHON) -m benchmarks $(ARGS)

# The client beside pika, aio-pika and C; writes docs/img/client.svg and the table in docs/performance.md.
bench-client: $(VENV)/.dev
	@scripts/system-deps bench
	@exec $(PYTHON) -m benchmarks.client $(ARGS)

# The embedded broker beside RabbitMQ; writes docs/img/broker.svg and the table in docs/performance.md.
bench-broker: $(VENV)/.dev
	@scripts/system-deps bench
	@exec $(PYTHON) -m benchmarks.broker

# What others wait while one client does something large; writes the table in docs/performance.md.
# A part, with smaller amounts:  make bench-fairness ARGS="--scale 0.1 purge close"
bench-fairness: $(VENV)/.dev
	@exec $(PYTHON) -m benchmarks.fairness $(ARGS)

# The dashboard on a broker with 10,000 queues; writes the table in docs/performance.md.
# A part, or the server's memory over an hour:  make bench-dashboard ARGS=rows   make bench-dashboard ARGS="memory --minutes 60"
bench-dashboard: $(VENV)/.dev
	@scripts/system-deps bench
	@exec $(PYTHON) -m benchmarks.dashboard $(ARGS)

# 1,000 students hand in within five minutes, schemes of 2 s; then 100,000 submissions in the records, 1,000 of them marked again
# after kills: twenty minutes. In short:  make bench ARGS="deadline grading"
bench-grading: $(VENV)/.dev
	@$(PYTHON) -m benchmarks.deadline --students 1000 --minutes 5 --seconds 2 $(ARGS)
	@$(PYTHON) -m benchmarks.grading
	@exec $(PYTHON) -m benchmarks.course

# Workers beside FastStream, Celery and Dramatiq; writes docs/img/flow.svg and the tables in docs/performance.md.
# A shorter pipeline:  make bench-flow ARGS="--messages 100000"
bench-flow: $(VENV)/.dev
	@scripts/system-deps bench
	@exec $(PYTHON) -m benchmarks.flow $(ARGS)

# Crawlers, processors and keepers beside Scrapy and Crawlee; writes the tables in docs/performance.md.
# A part, or all of it in short:  make bench-crawl ARGS="memory recrawl"   make bench-crawl ARGS=--quick
bench-crawl: $(VENV)/.dev .venv-crawl-peers/.done
	@exec $(PYTHON) -m benchmarks.crawl $(ARGS)

# The branches that the tests take, over all processes; fails below the gate in pyproject.toml, which is meant for all
# tests. Those of a part:  make coverage ARGS=tests/amqp. Line by line, afterwards:  .venv/bin/coverage html
coverage: $(VENV)/.dev
	@scripts/system-deps
	@rm -rf build/coverage
	@$(PYTHON) -m coverage run -m pytest -n 8 --dist loadfile --no-loadscope-reorder $(ARGS)
	@$(VENV)/bin/coverage combine --quiet
	@exec $(VENV)/bin/coverage report

# The site in build/site, with the reference of the public names; a warning or a link that leads nowhere fails it.
docs: $(VENV)/.dev
	@NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet
	@exec $(PYTHON) scripts/check_site.py build/site

# Takes the pictures of the dashboard in docs/img anew, of a real system in a headless Chromium.
pictures: $(VENV)/.dev
	@RABBITRY_PICTURES=docs/img exec $(PYTHON) -m pytest -q -m "" tests/browser/test_pictures.py

# Builds sdist and wheel into dist/, and tries the wheel alone with each of these Pythons that is here; others:
# make dist ARGS=3.14
dist: $(VENV)/.dev
	@scripts/dist $(or $(ARGS),3.11 3.12 3.13)

# Resolves the dependencies anew; keeps the versions that still fit:  make lock ARGS=--upgrade
lock: $(VENV)/.dev
	@scripts/lock $(ARGS)

$(VENV)/.up: requirements.lock pyproject.toml scripts/setup
	@scripts/setup requirements.lock
	@touch $@

$(VENV)/.dev: requirements-dev.lock pyproject.toml scripts/setup
	@scripts/setup requirements-dev.lock
	@touch $@ $(VENV)/.up

# Scrapy and Crawlee bring some sixty packages that nothing else needs.
.venv-crawl-peers/.done: requirements-crawl-peers.lock $(VENV)/.dev
	@$(PYTHON) -m venv --clear .venv-crawl-peers
	@.venv-crawl-peers/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes \
		--only-binary :all: --requirement requirements-crawl-peers.lock
	@touch $@

clean:
	rm -rf $(VENV) .venv-crawl-peers .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist
	find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
