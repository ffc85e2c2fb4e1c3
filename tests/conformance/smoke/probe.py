"""Build, reload, train one step and generate: run by a framework's own Python, once for many models.

    python probe.py TINY_MODEL.PY ROWS OUT CONFIG...

prints one line of JSON a configuration: {"name", "class", "parameters", "loss", ...} or {"name", "error"}.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import math
import sys
import traceback
from pathlib import Path
from typing import Any

TALK = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "What is 3 plus 4? 水 naïve"},
    {"role": "assistant", "content": "3 plus 4 is 7."},
]


def load(path: str) -> Any:
    """The script under test as a module."""
    spec = importlib.util.spec_from_file_location("tiny_model", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check_tokenizer(folder: Path, specials: list[str]) -> dict[str, Any]:
    """What training needs of a tokenizer, after it was loaded from its files."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "naïve 水は冷たい 🌊\n\tx = {1: 'a'}"
    whole = tokenizer.apply_chat_template(TALK, tokenize=False)
    prompt = tokenizer.apply_chat_template(TALK[:2], tokenize=False, add_generation_prompt=True)
    marked = tokenizer.apply_chat_template(
        TALK, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    masked = [i for i, keep in zip(marked["input_ids"], marked["assistant_masks"], strict=True) if keep]
    return {
        "tokenizer": type(tokenizer).__name__,
        "round_trip": tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text,
        "whole_tokens": all(len(tokenizer.encode(t, add_special_tokens=False)) == 1 for t in specials),
        "prefix": whole.startswith(prompt),
        "assistant": tokenizer.decode(masked, skip_special_tokens=True).strip(),
        "pad_is_eos": tokenizer.pad_token_id == tokenizer.eos_token_id,
        "vocab": len(tokenizer),
    }


def check_model(folder: Path, kind: Any) -> dict[str, Any]:
    """One forward and backward pass of the reloaded model, and four generated tokens."""
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = kind.from_pretrained(folder)
    batch = tokenizer("What is 3 plus 4? " * 5, return_tensors="pt")
    batch = {key: batch[key] for key in ("input_ids", "attention_mask")}
    output = model(**batch, labels=batch["input_ids"])
    output.loss.backward()
    norm = sum(float(w.grad.norm()) for w in model.parameters() if w.grad is not None)
    with torch.no_grad():
        made = model.generate(**batch, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    config = model.config.get_text_config()
    return {
        "loss": float(output.loss.detach()),
        "grad_norm_finite": math.isfinite(norm) and norm > 0,
        "generated": int(made.shape[1] - batch["input_ids"].shape[1]),
        "layers": config.num_hidden_layers,
        "kinds": sorted(set(getattr(config, "layer_types", None) or [])),
        "model_type": model.config.model_type,
        "quantized": hasattr(model.config, "quantization_config"),
        "model_vocab": config.vocab_size,
    }


def probe(tiny: Any, config: Path, rows: str, out: Path) -> dict[str, Any]:
    """All checks of one configuration."""
    import transformers

    folder = out / config.stem
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = tiny.main(["--config", str(config), "--rows", rows, "--out", str(folder)])
    if code:
        return {"name": config.stem, "code": code, "error": "tiny_model.py failed"}
    said = json.loads(printed.getvalue().splitlines()[-1])
    family = tiny.FAMILIES[tiny.family_of(json.loads(config.read_text()))]
    row = {"name": config.stem, "code": 0, "transformers": transformers.__version__, **said}
    row |= check_tokenizer(folder, tiny.special_tokens(family))
    return row | check_model(folder, getattr(transformers, said["class"]))


def main(argv: list[str]) -> int:
    """Command line entry."""
    tiny = load(argv[0])
    for name in argv[3:]:
        try:
            row = probe(tiny, Path(name), argv[1], Path(argv[2]))
        except Exception:
            row = {"name": Path(name).stem, "error": traceback.format_exc()[-1500:]}
        print(json.dumps(row), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
