# Every target sets up what it needs, on a machine that has Python 3.11, git and make.
# PYTHON=... names the interpreter, JOBS=... the test processes, TESTS=... what to test.

PYTHON ?= python3
JOBS ?= 2
TESTS ?=
BIN := .venv/bin

# One BLAS thread a process: the processes are the parallelism, and more threads than cores make all of them slow.
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1

.PHONY: help install demo test test-kernels test-lowest mutate stress fuzz lint bench bench-retrieval bench-speed \
	bench-training bench-scale bench-relations bench-advice bench-audit bench-identify published catalogue docs constraints clean

help:
	@echo "make demo    train small networks, register them, ask for equivalents and smaller ones"
	@echo "make test    all tests, the numerical ones under each set of BLAS kernels that the processor can run"
	@echo "make test-lowest  some of them with the lowest versions that pyproject.toml allows"
	@echo "make mutate  change the code in small ways and count what the tests notice; MODULES=registry/FILE.py ..."
	@echo "make stress  ingests killed at random moments and many at once, on both databases; some ten minutes"
	@echo "make fuzz    100,000 damaged headers and archives; FUZZ='--count N --seed S'"
	@echo "make lint    ruff and mypy"
	@echo "make bench   the figures of the README, measured again; make bench-speed: the method's speed alone"
	@echo "make published  the registry that ships as published:, built again from the zoo"
	@echo "make catalogue  the architectures that ship as catalogue:, built again from the installed libraries"
	@echo "make docs    check that links, commands, docs/cli.md and docs/python.md are true"
	@echo "make clean   remove what the others made, .venv too"

.venv/.run: pyproject.toml constraints.txt scripts/install.sh
	@echo "setting up .venv (once)"
	@PYTHON="$(PYTHON)" scripts/install.sh "" demo
	@touch $@

.venv/.dev: .venv/.run
	@PYTHON="$(PYTHON)" scripts/install.sh "postgres" test lint
	@touch $@

install: .venv/.dev

demo: .venv/.run
	@PATH="$(CURDIR)/$(BIN):$$PATH" examples/demo.sh demo

PYTEST := -n $(JOBS) --dist worksteal

# With bytecode even where PYTHONDONTWRITEBYTECODE is set: each process would rewrite the asserts of all tests again, and
# each of the hundreds of children that they start would compile the package.
TESTING := env -u PYTHONDONTWRITEBYTECODE $(ONE_THREAD) $(BIN)/python

# All of it: first the numerical tests under other BLAS kernels, then every test. TESTS=... is run once.
test: .venv/.dev
	@status=0; \
	$(if $(TESTS),,$(TESTING) scripts/kernels.py $(PYTEST) || status=$$?;) \
	$(TESTING) -m pytest $(PYTEST) $(TESTS) || status=$$?; \
	exit $$status

# Numbers round differently by the processor: the numerical tests under each set of BLAS kernels that this one can run.
test-kernels: .venv/.dev
	$(TESTING) scripts/kernels.py $(PYTEST)

# Two minutes, and the download of an older Torch the first time.
test-lowest: .venv/.dev
	JOBS=$(JOBS) scripts/lowest.sh

# Some half an hour for all modules, a few minutes for one. Any change that no test notices is printed.
mutate: .venv/.dev
	@$(BIN)/python -c 'import mutmut' 2>/dev/null || PYTHON="$(PYTHON)" scripts/install.sh "postgres" mutate
	JOBS=$(JOBS) $(BIN)/python scripts/mutate.py $(MODULES)

# STRESS="--kills N --models N --writers N --seed N"
stress: .venv/.dev
	$(BIN)/python -m benchmarks.stress $(STRESS)

# About a minute; another seed, or one mutation again: FUZZ='--only NUMBER --keep FILE'.
fuzz: .venv/.dev
	$(ONE_THREAD) $(BIN)/python -m tests.sources.fuzzing $(FUZZ)

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python scripts/typecheck.py

# The packages measured against stand apart from .venv; all they need besides is in it.
build/bench/.installed: benchmarks/requirements.txt | .venv/.dev
	@rm -rf $(@D)
	@if $(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --target $(@D) -r $< || \
		$(BIN)/python -m pip install --quiet --no-deps --target $(@D) -r $<; then touch $@; \
	else echo "the other packages cannot be had: measuring without them" >&2; fi

bench: .venv/.dev build/bench/.installed
	$(BIN)/python -m benchmarks

# Some five minutes; BENCH=--write puts the tables into docs/benchmarks.md.
bench-speed: .venv/.dev build/bench/.installed
	$(BIN)/python -m benchmarks.speed $(BENCH)

# Some four minutes, most of it learning; BENCH=MANIFEST for other models than the zoo's, BENCH=--write for the page.
bench-retrieval: .venv/.dev build/bench/.installed
	$(ONE_THREAD) $(BIN)/python -m benchmarks.retrieval $(BENCH)

# Some four minutes the first time, one with the networks kept. Takes BENCH=--write, too.
bench-training: .venv/.dev
	$(ONE_THREAD) $(BIN)/python -m benchmarks.training $(BENCH)
	$(ONE_THREAD) $(BIN)/python -m benchmarks.training.start_classes $(filter --write,$(BENCH))

# Some twelve minutes the first time, one with the networks kept. Takes BENCH=--write, too.
bench-advice: .venv/.dev
	$(ONE_THREAD) $(BIN)/python -m benchmarks.advice $(BENCH)

# Some eight minutes: registries of up to 100,000 models. Takes BENCH=--write, too.
bench-scale: .venv/.dev
	$(BIN)/python -m benchmarks.scale $(BENCH)

# Some ten minutes the first time, when networks are trained. Takes BENCH=--write, too.
bench-relations: .venv/.dev
	$(ONE_THREAD) $(BIN)/python -m benchmarks.relations $(BENCH)
	$(BIN)/python -m benchmarks.relations.stored_bytes $(filter --write,$(BENCH))

# Some fifteen minutes the first time, when networks are built without data. Takes BENCH=--write, too.
bench-identify: .venv/.dev
	$(ONE_THREAD) $(BIN)/python -m benchmarks.identify $(BENCH)

# Some ten minutes: every finding in the zoo, and planted faults. BENCH=--write puts the tables into docs/audit.md.
bench-audit: .venv/.dev
	$(ONE_THREAD) $(BIN)/python -m benchmarks.audit $(BENCH)

# The registry that ships as published:, from the zoo; after a change of schema, matrix rule, specs, sketches or figures.
# Then: python -m benchmarks.calibrate.
published: .venv/.dev
	$(ONE_THREAD) $(BIN)/python scripts/published.py

# The architectures that ship as catalogue:, from the installed libraries; after a change of their versions, of the matrix
# rule or of the fingerprint shapes. Some twenty minutes of two cores the first time; what was built is kept in build/catalogue.
catalogue: .venv/.dev
	$(ONE_THREAD) $(BIN)/python -m scripts.catalogue

docs: .venv/.dev
	$(BIN)/python scripts/cli_docs.py --check
	$(BIN)/python scripts/python_docs.py --check
	$(BIN)/python scripts/check_docs.py

# After a change of versions: what .venv holds now becomes what everyone gets.
constraints:
	$(BIN)/uv pip freeze --python $(BIN)/python --exclude-editable --exclude pip > constraints.txt

clean:
	rm -rf .venv build dist demo mutants *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find benchmarks cli examples migrations registry scripts tests -name __pycache__ -prune -exec rm -r {} +
