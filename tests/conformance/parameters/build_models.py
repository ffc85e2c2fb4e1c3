"""Build transformers models on the meta device and print their parameters (runs in the trl environment).

Standard input: one JSON object a line, {"key": ..., "config": a config.json dict}. Standard output: one JSON
object a line with the key and either `error` or `groups`: [name with * for indices, shape, count, linear].
"""

import collections
import json
import re
import sys

import torch
import transformers

INDEX = re.compile(r"(?<=\.)\d+(?=\.|$)")


def build(config: dict):
    """The class the config names, without allocating memory."""
    config = dict(config)
    loaded = transformers.AutoConfig.for_model(config.pop("model_type"), **config)
    with torch.device("meta"):
        return getattr(transformers, config["architectures"][0])(loaded)


def groups(model) -> list:
    linear = {
        f"{name}.weight" for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)
    }
    counted: collections.Counter = collections.Counter()
    for name, parameter in model.named_parameters():
        counted[INDEX.sub("*", name), tuple(parameter.shape), name in linear] += 1
    return [[name, shape, count, is_linear] for (name, shape, is_linear), count in counted.items()]


def layer_class(model) -> str:
    """Class of the repeated text decoder layer."""
    text = model.get_decoder() if hasattr(model, "get_decoder") else model
    return type(text.layers[0]).__name__ if hasattr(text, "layers") else ""


def main() -> None:
    transformers.logging.set_verbosity_error()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            model = build(request["config"])
            answer = {"groups": groups(model), "layer": layer_class(model)}
        except Exception as error:  # the caller decides whether a row that does not build is a failure
            answer = {"error": f"{type(error).__name__}: {error}"[:400]}
        print(json.dumps({"key": request["key"], **answer}), flush=True)


if __name__ == "__main__":
    main()
