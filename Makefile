# Every target sets up what it needs in .venv. Outside of this folder nothing is written but caches: pip's, and the
# one of images (see 'batchmix data').
# Paths are relative throughout, so the folder may have any name, spaces included.

PYTHON ?= python3
ARGS ?=
RECORD ?= latest
IN_PARALLEL := --numprocesses=logical --dist=loadfile
PIP := .venv/bin/python -m pip
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help train test check fix records results bench race article pictures docs constraints clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\): .*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-20s %s\n", $$1, $$2 }'
	@echo 'all that train, test, measure or draw take ARGS, as in: make train ARGS="--help"'

train: .venv/.installed ## train the CIFAR-10 recipe
	.venv/bin/batchmix train $(ARGS)

test: .venv/.installed-dev ## run the tests and the docstring examples
	.venv/bin/python -m pytest $(IN_PARALLEL) $(ARGS)

check: .venv/.installed-dev ## formatting, lint, types, tests: what CI runs
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/python -m mypy
	.venv/bin/python -m pytest $(IN_PARALLEL) $(ARGS)

fix: .venv/.installed-dev ## format, and repair what lint can repair
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

records: .venv/.installed ## train the five seeds with and without mixup, one after the other (an hour)
	for seed in 0 1 2 3 4; do for mix in mixup none; do \
	  .venv/bin/batchmix train --mix $$mix --seed $$seed --record results/cifar10.jsonl $(ARGS) || exit; \
	done; done

results: .venv/.installed ## make the README's table of results anew from results/
	.venv/bin/batchmix results results/*.jsonl --presets-only --write README.md

bench: .venv/.installed-dev ## measure mixing beside the other libraries, into benchmarks/records and docs/benchmarks.md
	PYTHONPATH=tests/shim .venv/bin/batchmix bench --shapes all \
	  --record benchmarks/records/$(RECORD).json --page docs/benchmarks.md $(ARGS)

race: .venv/.installed ## race our GPU presets and airbench on this device, into benchmarks/records and docs/records.md
	.venv/bin/python benchmarks/records.py --record --page $(ARGS)

article: .venv/.installed ## train the studies of the article's claims (hours), and write docs/article.md
	.venv/bin/batchmix compare --preset article --out results/article $(ARGS)

pictures: .venv/.installed ## draw docs/pictures and write docs/methods.md anew
	.venv/bin/batchmix show --out docs/pictures $(ARGS)
	.venv/bin/batchmix show all --out docs/pictures --page docs/methods.md $(ARGS)

docs: .venv/.installed-docs ## build the site, guides and reference, into build/docs
	.venv/bin/python -m sphinx --builder html --fail-on-warning --quiet \
	  --conf-dir docs --doctree-dir build/doctrees . build/docs $(ARGS)
	cp build/docs/README.html build/docs/index.html
	@echo 'built build/docs/index.html'

constraints: .venv/.installed-dev ## renew constraints.txt; lines marked '# held:' stay
	sed -n '/# held:/p' constraints.txt > .venv/held.txt
	$(PIP) install --quiet --dry-run --ignore-installed --report .venv/resolved.json \
	  --constraint .venv/held.txt pip -e '.[all]' --group dev --group docs
	.venv/bin/python -c "$$WRITE_CONSTRAINTS"

clean: ## remove .venv, caches and build products; data and runs stay
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps. While pip works there is no .venv/.installed, so a set-up cut short is seen: the next call
# starts again from an empty .venv. `make train` needs the first stamp only.
.venv/.installed: pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
	  echo "batchmix needs Python 3.10 or newer, and '$(PYTHON)' is missing or older; name another with: make PYTHON=/path/to/python3" >&2; \
	  exit 1; }
	@[ -e $@ ] || { echo "setting up .venv; the first time takes some minutes"; "$(PYTHON)" -m venv --clear .venv; }
	@rm -f $@
	$(PIP) install --constraint constraints.txt 'pip>=25.1'
	$(PIP) install --constraint constraints.txt -e '.[cli]'
	@touch $@

# pip that fails (no network, say) leaves the runtime usable; pip that is killed does not get to put it back.
.venv/.installed-dev: MORE := -e '.[all]' --group dev
.venv/.installed-docs: MORE := --group docs
.venv/.installed-dev .venv/.installed-docs: .venv/.installed
	@mv .venv/.installed .venv/.was-installed
	$(PIP) install --constraint constraints.txt $(MORE); \
	  status=$$?; mv .venv/.was-installed .venv/.installed; exit $$status
	@touch $@

# A pin whose newest version has left Python 3.10 holds from 3.11 on; 3.10 takes the newest that still fits.
# torch's own exact pins (CUDA) stay with torch, and its local version (+cpu, +cu130) stays open.
define WRITE_CONSTRAINTS
import json
from pathlib import Path
from packaging.specifiers import SpecifierSet

path = Path("constraints.txt")
lines = path.read_text().splitlines()
head = [line for line in lines if line.startswith("#")]
pins = [line for line in lines if "# held:" in line]
held = {line.split("==")[0] for line in pins}
for item in json.loads(Path(".venv/resolved.json").read_text())["install"]:
    meta = item["metadata"]
    name, version = meta["name"].lower().replace("_", "-"), meta["version"].split("+")[0]
    if name in held or name == "batchmix" or name.startswith(("nvidia-", "cuda-", "triton")):
        continue
    old = SpecifierSet(meta.get("requires_python", "")).contains("3.10")
    pins.append(f"{name}=={version}" + ("" if old else '; python_version >= "3.11"'))
path.write_text("\n".join([*head, *sorted(pins)]) + "\n")
endef
export WRITE_CONSTRAINTS
