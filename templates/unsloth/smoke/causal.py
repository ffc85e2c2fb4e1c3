"""Run a script after teaching AutoModelForCausalLM the tiny model's class.

    python smoke/causal.py train.py ARGUMENTS...

Without a GPU, Unsloth loads every model by AutoModelForCausalLM, which has no entry for most models that see.
"""

import json
import runpy
import sys
from pathlib import Path

import transformers

config = json.loads(Path("smoke/work/model/config.json").read_text(encoding="utf-8"))
kind = getattr(transformers, config["architectures"][0])
transformers.AutoModelForCausalLM.register(kind.config_class, kind, exist_ok=True)
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
