# make            set up and run the main job on the example data
# make test       quick tests (no torch), under 2 minutes
# make check      ruff, format, strict types
# make conformance       the real frameworks, in their own environments (cached outside the checkout)
# make conformance-full  every real run of tests/conformance/runs.yaml; writes what it proved into rules/evidence
# make accuracy   docs/accuracy.md anew: the estimates beside traced, published and known outcomes
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo setup test check conformance conformance-full examples accuracy clean

demo: $(STAMP)
	$(BIN)/advisor new my-run --model Qwen/Qwen3-8B --gpu h100 --method sft \
	  --data examples/data/sft.jsonl --yes --force

setup: $(STAMP)

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	for try in 1 2 3 4; do \
	  $(BIN)/python -m pip install --quiet --retries 8 -e '.[dev]' && break; \
	  [ $$try = 4 ] && exit 1; sleep 5; done
	touch $(STAMP)

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 -m "not conformance" --ignore=tests/conformance tests

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

conformance: $(STAMP)
	$(BIN)/python tools/framework_env.py --all
	$(BIN)/python -m pytest -n 2 --dist worksteal tests/conformance -rA

conformance-full: $(STAMP)
	$(BIN)/python tools/framework_env.py --all
	$(BIN)/python -m tests.conformance.run_list --record
	$(BIN)/python tools/evidence_report.py

examples: $(STAMP)
	$(BIN)/python tools/render_examples.py

accuracy: $(STAMP)
	$(BIN)/python tools/accuracy_report.py

clean:
	rm -rf $(VENV) dist build rules/compiled.json
