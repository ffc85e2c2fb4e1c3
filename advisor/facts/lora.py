"""What a LoRA lands on and how many parameters it adds, as peft counts them."""

from __future__ import annotations

from advisor.errors import InputError
from advisor.facts.types import ModelFacts, Weight

WORDS = ("all-linear", "attention", "experts")
ALL_LINEAR_ROLES = ("attention", "mlp", "shared_expert")
TOWER_ROLES = ("vision", "projector")

RENAMED_GATE_UP_DOWN = frozenset(
    [
        "deepseek_v2",
        "deepseek_v3",
        "deepseek_v32",
        "ernie4_5_moe",
        "exaone_moe",
        "glm4_moe",
        "glm4v_moe",
        "hunyuan_v1_moe",
        "glm4_moe_lite",
        "glm_moe_dsa",
        "mellum",
        "olmoe",
        "qwen3_moe",
        "qwen3_next",
        "solar_open",
    ]
)
RENAMED_W123 = frozenset({"minimax_m2", "mixtral"})
MAMBA = frozenset({"falcon_h1", "nemotron_h"})


def names_peft_redirects(model: ModelFacts) -> tuple[str, ...]:
    """Module names that peft 0.21 turns into adapters on the fused routed experts of this model type.

    On these types a dense or shared MLP cannot be named without adapting every routed expert as well.
    """
    if model.model_type in RENAMED_GATE_UP_DOWN:
        return ("gate", "gate_proj", "up_proj", "down_proj")
    return ("gate", "w1", "w2", "w3") if model.model_type in RENAMED_W123 else ()


def _last(weight: Weight) -> str:
    """The module name a LoRA target names: q_proj of ...self_attn.q_proj.weight."""
    parts = weight.name.removesuffix(".weight").split(".")
    return next((part for part in reversed(parts) if part not in ("*", "linear")), parts[-1])


def _reachable(model: ModelFacts, weight: Weight) -> bool:
    name = _last(weight)
    if model.model_type in MAMBA and name == "out_proj":
        return False
    return name not in names_peft_redirects(model)


def _by_word(model: ModelFacts, word: str) -> list[Weight]:
    roles = ALL_LINEAR_ROLES if word == "all-linear" else ("attention",)
    chosen = [w for w in model.weights if w.linear and w.role in roles and _reachable(model, w)]
    return [*chosen, *_routed(model)] if word == "experts" else chosen


def _routed(model: ModelFacts) -> list[Weight]:
    return [w for w in model.weights if w.role == "expert" and len(w.shape) == 3]


def _by_name(model: ModelFacts, name: str) -> list[Weight]:
    roles = (*ALL_LINEAR_ROLES, "router", "lm_head")
    linear = [w for w in model.weights if w.linear and w.role in roles and _last(w) == name]
    if linear:
        return linear
    known = sorted({_last(w) for w in model.weights if w.linear and w.role in roles})
    raise InputError(
        "lora_targets",
        f"'{name}' is no linear module of {model.id}; use one of {', '.join(WORDS)} "
        f"or modules out of {', '.join(known)}",
    )


def lora_modules(model: ModelFacts, targets: tuple[str, ...], *, vision: bool = False) -> list[Weight]:
    """Weights that get an adapter under `plan.lora_targets`; with `vision` the tower's linears too.

    Modules that peft cannot target on this model type (names_peft_redirects, Mamba's out_proj) are left out.
    """
    chosen: dict[int, Weight] = {}
    for target in targets:
        found = _by_word(model, target) if target in WORDS else _by_name(model, target)
        chosen.update({id(weight): weight for weight in found})
    if vision:
        chosen.update({id(w): w for w in model.weights if w.linear and w.role in TOWER_ROLES})
    return list(chosen.values())


def lora_parameters(model: ModelFacts, targets: tuple[str, ...], rank: int, *, vision: bool = False) -> int:
    """Trainable parameters of adapters of `rank`: rank x (in + out) a matrix, once for each fused expert."""
    total = 0
    for weight in lora_modules(model, targets, vision=vision):
        *experts, out, into = weight.shape
        total += rank * (out + into) * weight.count * (experts[0] if experts else 1)
    return total


def linear_module_names(model: ModelFacts, targets: tuple[str, ...]) -> list[str]:
    """Values for peft's `target_modules`."""
    return list(dict.fromkeys(_last(w) for w in lora_modules(model, targets) if w.linear))


def expert_parameter_names(model: ModelFacts) -> list[str]:
    """Values for peft's `target_parameters`: the fused routed experts, e.g. mlp.experts.gate_up_proj."""
    names = [w.name.rsplit("layers.*.", 1)[-1] for w in _routed(model)]
    return list(dict.fromkeys(names))
