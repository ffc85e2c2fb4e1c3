"""Count the trainable parameters peft adds to meta-device models (runs in the trl environment).

Standard input: one JSON object a line: key, config, modules, parameters, rank. Standard output: one JSON
object a line with the key and either `error` or `trainable`.
"""

import json
import sys

import transformers
from build_models import build
from peft import LoraConfig, get_peft_model


def trainable(request: dict) -> int:
    config = LoraConfig(
        r=request["rank"],
        target_modules=request["modules"],
        target_parameters=request["parameters"] or None,
        lora_dropout=0.0,
    )
    model = get_peft_model(build(request["config"]), config, low_cpu_mem_usage=True)
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)


def main() -> None:
    transformers.logging.set_verbosity_error()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"trainable": trainable(request)}
        except Exception as error:  # the caller fails the row with this message
            answer = {"error": f"{type(error).__name__}: {error}"[:400]}
        print(json.dumps({"key": request["key"], **answer}), flush=True)


if __name__ == "__main__":
    main()
