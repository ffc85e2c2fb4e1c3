"""Plan field <-> key of train.yaml under Megatron-core."""

from __future__ import annotations

from advisor.frameworks.ms_swift.groups import BATCH, KERNELS, METHOD, OPTIM, SPREAD, only
from advisor.frameworks.ms_swift.values import megatron
from advisor.frameworks.table import ABSENT, REPO, Case, Choice, Codec, Derived, Key, Row, mapped

WHOLE = Codec(int, float, tuple(float(n) for n in range(1, 101)), closed=True)

MEGATRON_ROWS: tuple[Row, ...] = (
    Key("micro_batch_size", "micro_batch_size", "sequences per replica and pass", when=megatron, group=BATCH),
    Derived("global_batch_size", only(megatron, lambda p, j: p.global_batch_size), "sequences per step", group=BATCH),
    Key("gradient_accumulation_steps", "gradient_accumulation_steps", "", REPO, when=megatron),
    Key("epochs", "num_train_epochs", "passes over the data", codec=WHOLE, when=megatron, group=BATCH),
    Key("learning_rate", "lr", "peak learning rate", when=megatron, group=OPTIM),
    Key("lr_scheduler", "lr_decay_style", "shape of the learning rate", when=megatron, group=OPTIM),
    Key("warmup_ratio", "lr_warmup_fraction", "share of all steps", when=megatron, group=OPTIM),
    Key("max_grad_norm", "clip_grad", "gradients are scaled down to this norm", when=megatron, group=OPTIM),
    Key("optimizer", "optimizer", "Adam with decoupled weight decay", codec=mapped({"adamw": "adam"}), when=megatron,
        group=OPTIM),
    Choice(
        ("precision",),
        (
            Case(("bf16",), {"torch_dtype": "bfloat16", "bf16": True, "fp8_format": ABSENT},
                 "bf16 weights, fp32 gradients and master weights"),
            Case(("fp8",), {"torch_dtype": "bfloat16", "bf16": True, "fp8_format": "e4m3", "fp8_recipe": "blockwise"},
                 "matrices in FP8, blockwise scales (Hopper, CUDA 12.9 or newer)"),
        ),
        when=megatron,
        group=KERNELS,
    ),
    Key("attention", "attention_backend", "attention kernel", codec=mapped({"flash": "flash"}), when=megatron,
        group=KERNELS),
    Derived("moe_permute_fusion", only(megatron, lambda p, j: True if j.model.moe else ABSENT),
            "one kernel sorts tokens by expert", group=KERNELS),
    Derived(
        "moe_aux_loss_coeff",
        only(lambda p: megatron(p) and p.tuning == "full" and p.method in ("cpt", "sft"),
              lambda p, j: 1.0e-3 if j.model.moe else ABSENT),
        "keeps experts evenly used",
        group=METHOD,
    ),
    Choice(
        ("recompute",),
        (
            Case(("none",), {"recompute_granularity": "none"}, "keep activations: faster"),
            Case(("selective",), {"recompute_granularity": "selective"}, "recompute the attention core"),
            Case(
                ("full",),
                {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1},
                "recompute every layer",
            ),
        ),
        when=megatron,
        group=KERNELS,
    ),
    Key("tensor_parallel", "tensor_model_parallel_size", "ranks that slice every matrix", when=megatron, group=SPREAD),
    Key("sequence_parallel", "sequence_parallel", "norms are split along the sequence too",
        when=lambda p: megatron(p) and p.tensor_parallel > 1, group=SPREAD),
    Key("pipeline_parallel", "pipeline_model_parallel_size", "stages of layers", when=megatron, group=SPREAD),
    Key("pipeline_first_layers", "decoder_first_pipeline_num_layers", "layers of the first stage",
        when=lambda p: megatron(p) and p.pipeline_first_layers > 0, group=SPREAD),
    Key("pipeline_last_layers", "decoder_last_pipeline_num_layers", "layers of the last stage",
        when=lambda p: megatron(p) and p.pipeline_last_layers > 0, group=SPREAD),
    Key("virtual_pipeline_parallel", "virtual_pipeline_model_parallel_size", "model chunks of a rank: a shorter bubble",
        when=lambda p: megatron(p) and p.virtual_pipeline_parallel > 1, group=SPREAD, since="4.0.0"),
    Key("context_parallel", "context_parallel_size", "ranks that split the sequence", when=megatron, group=SPREAD),
    Key("expert_parallel", "expert_model_parallel_size", "ranks over which experts are spread", when=megatron,
        group=SPREAD),
    Key("expert_tensor_parallel", "expert_tensor_parallel_size", "ranks that slice each expert", when=megatron,
        group=SPREAD),
    Choice(
        ("offload",),
        (
            Case(("none",), {"optimizer_cpu_offload": False}, "optimizer states stay on the GPU"),
            Case(
                ("optimizer",),
                {
                    "optimizer_cpu_offload": True,
                    "use_precision_aware_optimizer": True,
                    "optimizer_offload_fraction": 1.0,
                },
                "optimizer states and step in host memory",
            ),
        ),
        when=megatron,
        group=SPREAD,
    ),
)  # fmt: skip
