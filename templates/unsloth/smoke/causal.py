"""Run a script after teaching AutoModelForCausalLM the tiny model's class.

    python smoke/causal.py train.py ARGUMENTS...

Without a GPU, Unsloth loads every model by AutoModelForCausalLM, which has no entry for most models that see.
"""

import json
import runpy
import sys
from pathlib import Path

from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

config = json.loads(Path("smoke/work/model/config.json").read_text(encoding="utf-8"))
# Its own `register` passes over configurations that transformers brings itself.
MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.setdefault(config["model_type"], config["architectures"][0])
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
