# make demo   set everything up, train on phonon and on random snapshots, compare: runs/demo/report
# make test   set everything up and run the tests
# make bench  ratios that we quote, measured on this machine
# make site   all pages, options, commands and the Python interface as a site: site/html/index.html
# make release-check   sdist, wheel, their metadata and files, an installation of each

PYTHON ?= python3
VENV ?= .venv
BROWSER_HERE := [ -t 1 ] && [ -z "$$CI" ] && [ -n "$$DISPLAY$$WAYLAND_DISPLAY$$(uname | grep Darwin)" ]

.PHONY: demo test slow bench site release-check setup clean

demo: setup
	$(VENV)/bin/spkphonon generate --dry-run experiment=phonon_antiperovskite
	$(VENV)/bin/spktrain -m experiment=phonon_study run.experiment=demo heads=hamiltonian seed=1 data.num_train=96 \
		data/ensemble=phonon,random trainer.max_epochs=40
	@if $(BROWSER_HERE); then $(VENV)/bin/python -m webbrowser file://$(CURDIR)/runs/demo/report/index.html; fi

test: setup
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -q -n auto

slow: setup
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -q -m slow --timeout 3600

bench: setup
	$(VENV)/bin/python -m tests.benchmarks

site: setup
	$(VENV)/bin/python .ci/site/build.py

release-check: setup
	VENV=$(VENV) .ci/release_check

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml schnetpack_phonon/_hydra.py schnetpack_phonon/_sweeper.py
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else \
	"$(PYTHON) is Python %d.%d; schnetpack_phonon needs 3.11, 3.12 or 3.13: make $(MAKECMDGOALS) PYTHON=python3.12" % v)'
	$(PYTHON) -m venv $(VENV)
	@echo "installing (3 to 6 GB with PyTorch) ..."
	$(VENV)/bin/python -m pip install -q --disable-pip-version-check uv
	VIRTUAL_ENV=$(VENV) $(VENV)/bin/uv pip install -q --compile-bytecode -e '.[dev]' \
		|| $(VENV)/bin/python -m pip install -q --disable-pip-version-check -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) site dist .pytest_cache .ruff_cache .mypy_cache
