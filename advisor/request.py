"""What the user asked for: the only input type.

One table of fields: flags, wizard questions, answers-file keys, JSON Schema and the documentation all
derive from `Request`. A field left at None was not answered; `advisor.resolve` fills it and says from where.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from advisor.errors import InputError

Method = Literal[
    "cpt", "sft", "dpo", "ipo", "kto", "orpo", "simpo", "cpo", "rm", "ppo", "grpo", "dapo", "gspo", "dr-grpo",
    "rloo", "reinforce++", "gkd",
]  # fmt: skip
FrameworkName = str


def _ask(
    group: str, text: str, *, question: str = "", default: Any = None, flag: str = "", **limits: Any
) -> Any:
    """A field of the table. `question`: what the wizard asks; empty: only on demand. `flag`: another flag form."""
    extra: dict[str, Any] = {"group": group, "question": question, "flag": flag}
    return Field(default=default, description=text, json_schema_extra=extra, **limits)


class Request(BaseModel):
    """Every question the advisor can ask. Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)

    model: str | None = _ask(
        "model", "Hub id, local folder or config.json", question="Which model do you start from?"
    )
    offline: bool | None = _ask("model", "Never ask a hub")

    method: Method | None = _ask("method", "What to learn", question="What do you want to train?")
    tuning: Literal["auto", "full", "freeze", "lora", "dora", "qlora"] | None = _ask(
        "method", "Which weights train", question="Which weights should train?"
    )
    lora_rank: int | None = _ask("method", "Rank of the adapters", ge=1, le=2048)
    lora_targets: str | None = _ask(
        "method", "all-linear, attention, experts or module names, comma-separated"
    )
    quantization: Literal["none", "8bit", "4bit"] | None = _ask("method", "How the frozen base is stored")

    gpu: str | None = _ask("cluster", "GPU by catalog id or alias", question="Which GPU do you have?")
    gpus_per_node: int | None = _ask(
        "cluster", "GPUs in one machine", question="How many GPUs in one machine?", ge=1, le=256
    )
    nodes: int | None = _ask("cluster", "Machines", question="How many machines?", ge=1, le=65536)
    gpu_memory_gib: float | None = _ask("cluster", "Usable memory of one GPU, GiB", gt=0, le=4096)
    cpu_memory_gib: float | None = _ask("cluster", "Host memory of one machine, GiB", gt=0)
    nvme_gib: float | None = _ask("cluster", "Local NVMe of one machine usable for offload, GiB", ge=0)
    interconnect: Literal["infiniband", "ethernet", "efa", "none"] | None = _ask(
        "cluster", "Network between machines"
    )

    data: tuple[str, ...] | None = _ask(
        "data", "File, folder or hub id of the training rows", question="Where is your data?"
    )
    data_format: str | None = _ask("data", "Format of the rows, when it is not detected")
    data_in_place: bool | None = _ask("data", "Refer to the data where it is instead of copying it")
    seq_len: int | None = _ask(
        "data", "Longest sample in tokens", question="Longest sample in tokens?", ge=16, le=16_777_216
    )
    samples: int | None = _ask("data", "Rows, when the data is not at hand", ge=1)

    epochs: float | None = _ask("training", "Passes over the data", gt=0)
    global_batch_size: int | None = _ask("training", "Sequences per optimizer step", ge=1)
    learning_rate: float | None = _ask("training", "Peak learning rate", gt=0, lt=1)
    precision: Literal["bf16", "bf16-pure", "fp16", "fp32", "fp8"] | None = _ask("training", "Precision")
    optimizer: (
        Literal[
            "adamw", "adamw_foreach", "adamw_8bit", "paged_adamw_8bit", "adafactor", "muon", "galore_adamw",
            "galore_adamw_layerwise", "apollo_adamw", "apollo_adamw_layerwise",
        ]
        | None
    ) = _ask("training", "adamw is the fused one")  # fmt: skip
    optimizer_rank: int | None = _ask("training", "Rank that GaLore and APOLLO project to", ge=1, le=8192)

    prompt_len: int | None = _ask("rl", "Longest prompt, tokens", ge=1)
    response_len: int | None = _ask("rl", "Longest generated answer, tokens", ge=1)
    generations: int | None = _ask("rl", "Answers sampled per prompt", ge=2, le=1024)
    rollout_gpus: int | None = _ask(
        "rl", "GPUs that only generate; the others train (default: as rollout_placement says)", ge=1
    )
    rollout_placement: Literal["auto", "colocated", "separate", "separate-async"] | None = _ask(
        "rl",
        "Where answers are generated: on the GPUs that train, on GPUs of their own while training waits, or there one "
        "step ahead (auto: the faster of the first two)",
    )
    reward: str | None = _ask("rl", "FILE.py:function that scores an answer")
    reward_model: str | None = _ask("rl", "Hub id or folder of a reward model")
    teacher: str | None = _ask("rl", "Hub id or folder of the teacher")
    adapter: str | None = _ask("rl", "Folder of a LoRA to start from")

    max_hours: float | None = _ask("limits", "Longest training time, hours", gt=0)
    max_cost: float | None = _ask("limits", "Highest cost, USD", gt=0)
    price_per_gpu_hour: float | None = _ask(
        "limits", "USD that one GPU costs an hour, instead of the catalog's indicative price", gt=0
    )
    price_source: str | None = _ask("limits", "Where that price is from; shown beside it")
    pareto: bool | None = _ask("limits", "Also show cost against time over GPU counts and other cards")
    minimize: Literal["gpus", "hours", "cost"] | None = _ask(
        "limits", "Fewest GPUs that do it, or least hours or cost up to the given cluster"
    )
    what_fits: Literal["seq-len", "model"] | None = _ask(
        "limits", "Longest sequence or largest catalog model that fits; a given one is the most tried"
    )

    framework: FrameworkName | None = _ask("preferences", "Pin one framework")
    framework_version: str | None = _ask("preferences", "Pin its release")
    avoid: tuple[str, ...] | None = _ask("preferences", "Frameworks you do not want")
    prefer: Literal["simplicity", "memory", "speed", "stability", "community"] | None = _ask(
        "preferences", "What matters most", question="What matters most to you?"
    )
    launcher: Literal["auto", "local", "torchrun", "slurm", "ray", "kubeflow", "skypilot"] | None = _ask(
        "preferences", "How jobs start on your machines"
    )
    tracker: Literal["none", "wandb", "mlflow", "tensorboard", "swanlab", "trackio"] | None = _ask(
        "preferences", "Experiment tracker"
    )
    hub: Literal["hf", "modelscope"] | None = _ask("preferences", "Where models and data come from")
    rules: tuple[str, ...] | None = _ask("preferences", "House rules files")
    calibration: bool | None = _ask("preferences", "Use what `advisor calibrate` kept of your own runs")

    micro_batch_size: int | None = _ask("plan", "Sequences per GPU and pass", ge=1)
    gradient_accumulation_steps: int | None = _ask("plan", "Passes per optimizer step", ge=1)
    zero: Literal[0, 1, 2, 3] | None = _ask("plan", "ZeRO stage")
    fsdp: bool | None = _ask("plan", "Shard with FSDP2")
    fsdp_replicas: int | None = _ask("plan", "Copies of what FSDP2 shards (hybrid sharding)", ge=1)
    offload: Literal["none", "optimizer", "all", "nvme", "experts"] | None = _ask(
        "plan", "What moves to host memory"
    )
    tensor_parallel: int | None = _ask("plan", "Tensor parallel degree", ge=1)
    pipeline_parallel: int | None = _ask("plan", "Pipeline stages", ge=1)
    pipeline_first_layers: int | None = _ask("plan", "Layers of the first stage", ge=1)
    pipeline_last_layers: int | None = _ask("plan", "Layers of the last stage", ge=1)
    virtual_pipeline_parallel: int | None = _ask("plan", "Model chunks of each pipeline rank", ge=1)
    expert_parallel: int | None = _ask("plan", "Expert parallel degree", ge=1)
    expert_tensor_parallel: int | None = _ask("plan", "Tensor parallel degree of the experts", ge=1)
    context_parallel: int | None = _ask("plan", "Context parallel degree", ge=1)
    gradient_checkpointing: bool | None = _ask("plan", "Recompute activations in backward")
    recompute: Literal["none", "selective", "full"] | None = _ask("plan", "Megatron's recomputation")
    activation_offload: bool | None = _ask("plan", "Checkpointed layer inputs wait in host memory")
    backend: Literal["hf", "megatron"] | None = _ask("plan", "Training engine")
    attention: Literal["flash", "sdpa", "eager"] | None = _ask("plan", "Attention kernel")
    liger: bool | None = _ask("plan", "Liger kernels")
    compile: bool | None = _ask("plan", "torch.compile over the layers")
    packing: bool | None = _ask("plan", "Concatenate short samples")
    loss: Literal["stock", "chunked", "fused"] | None = _ask("plan", "Cross-entropy path")
    param_dtype: Literal["bf16", "fp32"] | None = _ask("plan", "What trainable weights are held in")
    master_weights: bool | None = _ask("plan", "fp32 copy beside bf16 weights")

    def given(self) -> dict[str, Any]:
        """The answered fields only."""
        return {name: value for name, value in self.model_dump(mode="json").items() if value is not None}


PINS = {
    "micro_batch_size": "micro_batch_size",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "zero": "zero_stage",
    "fsdp": "fsdp",
    "fsdp_replicas": "fsdp_replicas",
    "offload": "offload",
    "tensor_parallel": "tensor_parallel",
    "pipeline_parallel": "pipeline_parallel",
    "pipeline_first_layers": "pipeline_first_layers",
    "pipeline_last_layers": "pipeline_last_layers",
    "virtual_pipeline_parallel": "virtual_pipeline_parallel",
    "expert_parallel": "expert_parallel",
    "expert_tensor_parallel": "expert_tensor_parallel",
    "context_parallel": "context_parallel",
    "gradient_checkpointing": "gradient_checkpointing",
    "recompute": "recompute",
    "activation_offload": "activation_offload",
    "backend": "backend",
    "attention": "attention",
    "liger": "liger",
    "compile": "compile",
    "packing": "packing",
    "loss": "loss",
    "param_dtype": "param_dtype",
    "master_weights": "master_weights",
    "optimizer": "optimizer",
    "optimizer_rank": "optimizer_rank",
    "precision": "precision",
}
"""Request field -> plan field that it fixes when given."""


def parse_request(values: Mapping[str, Any]) -> Request:
    """A request from flags, answers or JSON. Raises InputError naming the first field at fault."""
    values = {k: v for k, v in values.items() if k != "origins"}
    for name in ("data", "avoid", "rules"):
        if isinstance(values.get(name), str):
            values = {**values, name: (values[name],)}
    try:
        return Request.model_validate(values)
    except ValidationError as error:
        raise _first_fault(error) from None


def _first_fault(error: ValidationError) -> InputError:
    fault = error.errors()[0]
    name = str(fault["loc"][0]) if fault["loc"] else "request"
    if fault["type"] == "extra_forbidden":
        return InputError(name, f"no such field{_close(name)}")
    given = fault.get("input")
    return InputError(
        name, f"{given!r} will not do: {_wanted(fault['type'], fault.get('ctx', {}), fault['msg'])}"
    )


_WANTED = {
    "int_parsing": "give a whole number",
    "int_type": "give a whole number",
    "int_from_float": "give a whole number",
    "float_parsing": "give a number",
    "float_type": "give a number",
    "bool_parsing": "give true or false",
    "bool_type": "give true or false",
    "string_type": "give text",
    "tuple_type": "give a list",
    "literal_error": "choose {expected}",
    "greater_than": "give more than {gt}",
    "greater_than_equal": "give at least {ge}",
    "less_than": "give less than {lt}",
    "less_than_equal": "give at most {le}",
}
"""Pydantic's kind of error -> what works instead."""


def _wanted(kind: str, context: Mapping[str, Any], message: str) -> str:
    shape = _WANTED.get(kind)
    return shape.format(**context).replace("'", "") if shape else message[:1].lower() + message[1:]


def _close(name: str) -> str:
    import difflib

    close = difflib.get_close_matches(name, Request.model_fields, n=1)
    return f"; did you mean {close[0]}?" if close else ""
