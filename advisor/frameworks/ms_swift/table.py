"""Plan field <-> key of train.yaml: one row a backend where the names differ."""

from __future__ import annotations

from typing import Any

from advisor.frameworks.ms_swift.data import columns
from advisor.frameworks.ms_swift.groups import BATCH, DATA, KERNELS, METHOD, MODEL, OPTIM, SAVE, SPREAD, only
from advisor.frameworks.ms_swift.megatron import MEGATRON_ROWS
from advisor.frameworks.ms_swift.values import (
    NAME,
    PLUGIN,
    Compute,
    adapters,
    expert_parameters,
    generates,
    grouped,
    has_beta,
    hf,
    last_layers,
    megatron,
    other_type,
    reference_adapters,
    registered_names,
    report_to,
    reward_funcs,
    reward_models,
    reward_types,
    target_modules,
    truncation,
    vllm,
    workers,
)
from advisor.frameworks.shared import (
    OPTIMIZERS,
    SERVER_PATIENCE,
    SERVER_PORT,
    adapter_rows,
    batch_rows,
    colocated,
    compile_row,
    low_rank_keys,
    low_rank_rows,
    on_server,
    pool_rows,
    renamed,
    schedule_rows,
    seed_row,
    server_row,
    size_rows,
)
from advisor.frameworks.table import (
    ABSENT,
    FLOAT,
    REPO,
    Case,
    Choice,
    Const,
    Derived,
    Key,
    Row,
    Table,
    mapped,
)
from advisor.plan import Plan


def _run_name(tracker: str) -> Compute:
    return only(megatron, lambda p, j: j.run_name if j.tracker == tracker else ABSENT)


SHAPES = mapped({"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"})


def _methods() -> tuple[Case, ...]:
    dapo = {"loss_type": "dapo", "epsilon_high": 0.28, "dynamic_sample": True, "overlong_filter": True}
    gspo = {"importance_sampling_level": "sequence", "epsilon": 3.0e-4, "epsilon_high": 4.0e-4}
    simpo = {"rlhf_type": "simpo", "cpo_alpha": 0.0, "simpo_gamma": 1.0}
    grpo = {"rlhf_type": "grpo", "loss_type": "grpo"}
    rlhf: dict[str, tuple[dict[str, Any], str]] = {
        "dpo": ({"rlhf_type": "dpo", "loss_type": "sigmoid"}, "the DPO loss"),
        "ipo": ({"rlhf_type": "dpo", "loss_type": "ipo"}, "IPO is a DPO loss here"),
        "kto": ({"rlhf_type": "kto"}, "answers labelled good or bad"),
        "orpo": ({"rlhf_type": "orpo"}, "no reference model"),
        "simpo": (simpo, "alpha 0 drops the SFT term; gamma is the margin"),
        "cpo": ({"rlhf_type": "cpo", "loss_type": "sigmoid"}, "the CPO loss"),
        "rm": ({"rlhf_type": "rm"}, "a score head learns which answer is better"),
        "ppo": ({"rlhf_type": "ppo"}, "a value model beside the policy"),
        "grpo": (grpo, "the loss of the GRPO paper"),
        "dapo": (
            {**grpo, **dapo},
            "DAPO: token-level loss, wider upper clip, dull groups and cut answers ignored",
        ),
        "gspo": ({**grpo, **gspo}, "GSPO: importance ratio per sequence, hence small clips"),
        "dr-grpo": (
            {**grpo, "loss_type": "dr_grpo", "scale_rewards": "none"},
            "Dr. GRPO: no length or deviation normalisation",
        ),
        "rloo": ({**grpo, "advantage_estimator": "rloo"}, "RLOO: the other answers are the baseline"),
        "reinforce++": (
            {**grpo, "advantage_estimator": "reinforce_plus_plus"},
            "REINFORCE++: advantages normalised over the batch",
        ),
        "gkd": ({"rlhf_type": "gkd"}, "learn from a teacher's distribution"),
    }
    cases = [
        Case(("cpt",), {"command:subcommand": "pt"}, "raw text"),
        Case(("sft",), {"command:subcommand": "sft"}, "answers to prompts"),
    ]
    for method, (keys, why) in rlhf.items():
        cases.append(Case((method,), {"command:subcommand": "rlhf", **keys}, why))
    return tuple(cases)


TUNINGS = (
    Case(("full", "none"), {"tuner_type": "full"}, "all weights"),
    Case(
        ("freeze", "none"),
        {"tuner_type": "full", "freeze_parameters_ratio": 1.0},
        "all but the last layers",
    ),
    Case(("lora", "none"), {"tuner_type": "lora"}, "low-rank adapters"),
    Case(
        ("dora", "none"),
        {"tuner_type": "lora", "use_dora": True},
        "adapters with a learned magnitude",
    ),
    Case(
        ("qlora", "4bit"),
        {"tuner_type": "lora", "quant_method": "bnb", "quant_bits": 4},
        "adapters on a 4-bit NF4 base",
    ),
    Case(
        ("qlora", "8bit"),
        {"tuner_type": "lora", "quant_method": "bnb", "quant_bits": 8},
        "adapters on an 8-bit base",
    ),
)


MODEL_ROWS: tuple[Row, ...] = (
    Choice(
        ("backend",),
        (Case(("hf",), {"command:program": "swift"}), Case(("megatron",), {"command:program": "megatron"})),
    ),
    Derived("model", lambda p, j: j.model_path, "the model to start from", group=MODEL),
    Derived(
        "model_type", lambda p, j: registered_names(j)[0], "never guessed from a folder's name", group=MODEL
    ),
    Derived("template", lambda p, j: registered_names(j)[1], "chat format", group=MODEL),
    Derived(
        "use_hf",
        lambda p, j: True if j.hub == "hf" else ABSENT,
        "models and datasets from Hugging Face, not ModelScope",
        group=MODEL,
    ),
    Derived("adapters", adapters, "the adapter to go on with", group=MODEL),
    Derived("ref_adapters", reference_adapters, "the reference starts from it too", group=MODEL),
    Choice(
        ("tuning", "quantization"),
        renamed(TUNINGS, "4.0.0", {"tuner_type": "train_type"}),
        group=MODEL,
    ),
    Derived("trainable_parameters", last_layers, "the layers that train", group=MODEL),
    Key("freeze_trainable_layers", "freeze_trainable_layers", "", REPO, when=lambda p: p.tuning == "freeze"),
    *adapter_rows(MODEL, "0: the default 0.05 breaks fused experts", rank_key="lora_rank"),
    Derived("target_modules", target_modules, "modules that get adapters", group=MODEL),
    Derived("target_parameters", expert_parameters, "routed experts are fused 3-D parameters", group=MODEL),
)

DATA_ROWS: tuple[Row, ...] = (
    Derived("dataset", lambda p, j: [j.data_path], "the training rows", group=DATA),
    Derived("columns", columns, "your columns -> ms-swift's", group=DATA),
    Key(
        "prompt_len",
        "max_length",
        "longest prompt, tokens",
        when=lambda p: p.online,
        absent=0,
        group=DATA,
    ),
    Key("seq_len", "max_length", "tokens per sample", when=lambda p: not p.online, group=DATA),
    Key("prompt_len", "prompt_len", "", REPO, when=lambda p: p.method == "gkd"),
    Derived("truncation_strategy", truncation, "longer rows are cut; the default drops them", group=DATA),
    Key("packing", "packing", "fill each sequence with several samples", absent=False, group=DATA),
    Derived("dataset_num_proc", workers, "processes that tokenize", group=DATA),
)

METHOD_ROWS: tuple[Row, ...] = (
    Choice(("method",), _methods(), group=METHOD),
    Key("beta", "beta", "strength of the preference or KL term", when=has_beta, group=METHOD),
    Key("beta", "kl_coef", "strength of the KL term", when=lambda p: p.method == "ppo", group=METHOD),
    Derived("teacher_model", only(lambda p: p.method == "gkd", lambda p, j: j.teacher), "to learn from", group=METHOD),
    Derived(
        "teacher_model_type",
        only(lambda p: p.method == "gkd", lambda p, j: other_type(j.teacher)),
        "of the teacher",
        group=METHOD,
    ),
    Const(
        "lmbda",
        0.0,
        "the rows' own answers: no rollout engine runs beside Megatron",
        when=lambda p: p.method == "gkd" and megatron(p),
        group=METHOD,
    ),
    Const(
        "lmbda", 0.5, "share of batches that the student answers itself", when=lambda p: p.method == "gkd" and hf(p),
        group=METHOD,
    ),
    Derived("external_plugins", only(grouped, lambda p, j: [PLUGIN] if j.reward else ABSENT), "your reward",
            group=METHOD),
    Derived("reward_funcs", reward_funcs, "the function that scores answers", group=METHOD),
    Derived("reward_model", reward_models, "the model that scores answers", group=METHOD),
    Derived("reward_model_type", reward_types, "of the reward model", group=METHOD),
    Key("generations", "num_generations", "answers per prompt", when=grouped, group=METHOD),
    Key("generations", "generations", "", REPO, when=lambda p: p.method == "ppo"),
    Key("response_len", "max_completion_length", "longest answer, tokens", when=generates, group=METHOD),
    Const("temperature", 1.0, "answers are drawn from the policy itself", when=lambda p: p.online, group=METHOD),
    server_row(METHOD, "vLLM shares the training GPUs", grouped),
    Derived("vllm_server_host", only(on_server, lambda p, j: ["127.0.0.1"] * max(p.rollout_nodes, 1)),
        "run.sh names other machines", group=METHOD),
    Derived("vllm_server_port", only(on_server, lambda p, j: [SERVER_PORT] * max(p.rollout_nodes, 1)),
        "of launch/rollout.sh", group=METHOD),
    Const("vllm_server_timeout", SERVER_PATIENCE, "seconds it may take to load", when=on_server, group=METHOD),
    Const("use_vllm", False, "no rollout engine", when=lambda p: p.method == "gkd", group=METHOD),
    Key("rollout_engine", "rollout_engine", "", REPO, when=lambda p: p.method == "ppo"),
    Key("rollout_memory_fraction", "vllm_gpu_memory_utilization", "share of each GPU that vLLM may take", when=colocated,
        group=METHOD),
    Key("rollout_tensor_parallel", "vllm_tensor_parallel_size", "GPUs that share one vLLM engine", when=colocated,
        group=METHOD),
    Derived("vllm_max_model_len", only(colocated, lambda p, j: p.seq_len), "prompt and answer", group=METHOD),
    Key("rollout_sleep", "sleep_level", "1: vLLM gives its memory back while the policy trains",
        codec=mapped({True: 1, False: 0}), when=colocated, group=METHOD),
    *pool_rows(),
    Choice(
        ("rollout_offload",),
        (
            Case((True,), {"offload_model": True, "offload_optimizer": True},
                 "weights and states wait in host memory while vLLM generates"),
            Case((False,), {"offload_model": ABSENT, "offload_optimizer": ABSENT}),
        ),
        when=vllm,
        group=METHOD,
    ),
)  # fmt: skip


def _shardings() -> tuple[Case, ...]:
    """(zero_stage, fsdp, offload, gradient_checkpointing) on transformers."""
    presets = {
        (0, "none"): ABSENT,
        (1, "none"): "zero1",
        (2, "none"): "zero2",
        (3, "none"): "zero3",
        (2, "optimizer"): "zero2_offload",
        (3, "all"): "zero3_offload",
    }
    cases: list[Case] = []
    for kept in (True, False):
        for (stage, offload), preset in presets.items():
            why = "what the ranks shard" if stage else "every rank holds everything"
            cases.append(
                Case(
                    (stage, False, offload, kept), {"deepspeed": preset, "gradient_checkpointing": kept}, why
                )
            )
        # The zero3 preset with the optimizer alone in host memory.
        there = {f"{OFFLOADED}.offload_optimizer.device": "cpu", "gradient_checkpointing": kept}
        cases.append(Case((3, False, "optimizer", kept), there, "ZeRO-3, optimizer in host memory"))
        for offload, options in (("none", "full_shard auto_wrap"), ("all", "full_shard auto_wrap offload")):
            keys = {
                "fsdp.fsdp": options,
                "fsdp.fsdp_config.activation_checkpointing": kept,
                "gradient_checkpointing": False,
            }
            cases.append(Case((3, True, offload, kept), keys, "FSDP2; it recomputes activations itself"))
    return tuple(cases)


OFFLOADED = "deepspeed.zero_optimization"


def _zero3_optimizer(plan: Plan) -> bool:
    return hf(plan) and not plan.fsdp and plan.zero_stage == 3 and plan.offload == "optimizer"


FSDP = {
    "fsdp_version": 2,
    "reshard_after_forward": True,
    "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    "cpu_ram_efficient_loading": True,
    "state_dict_type": "FULL_STATE_DICT",
}
"""The `fsdp2` preset, except that it saves sharded state only: no adapter and no model file."""

ZERO3_OPTIMIZER = {
    "bf16.enabled": "auto",
    "fp16.enabled": "auto",
    "zero_optimization.stage": 3,
    "zero_optimization.offload_optimizer.pin_memory": True,
    "zero_optimization.overlap_comm": False,
    "zero_optimization.contiguous_gradients": True,
    "zero_optimization.reduce_bucket_size": "auto",
    "zero_optimization.stage3_prefetch_bucket_size": "auto",
    "zero_optimization.stage3_param_persistence_threshold": "auto",
    "zero_optimization.stage3_gather_16bit_weights_on_model_save": True,
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
}

OWN_GALORE = ("galore_adamw", "galore_adamw_layerwise")
"""Its own GaLore has no hook that steps within the backward."""

HF_ROWS: tuple[Row, ...] = (
    *batch_rows(BATCH, hf, codecs={"epochs": FLOAT}),
    Key("warmup_ratio", "warmup_ratio", "share of all steps", when=hf, group=OPTIM),
    *schedule_rows(
        OPTIM,
        hf,
        without=("warmup_ratio", "weight_decay"),
        codecs={"lr_scheduler": SHAPES},
    ),
    Key("weight_decay", "weight_decay", "decoupled weight decay; the default is 0.1", group=OPTIM),
    Choice(
        ("optimizer",),
        (
            *(
                Case((ours,), {"optim": theirs, "use_galore": ABSENT})
                for ours, theirs in OPTIMIZERS.items()
                if ours not in OWN_GALORE
            ),
            Case(
                ("galore_adamw",),
                {"optim": "adamw_torch", "use_galore": True},
                "full tuning in projected gradients, by the copy of GaLore that ms-swift brings",
            ),
        ),
        "optimizer and its implementation",
        when=hf,
        group=OPTIM,
    ),
    *low_rank_keys("galore", "galore_rank", "galore_update_proj_gap", "galore_scale", OPTIM, hf),
    *low_rank_rows(OPTIM, hf, names=("apollo",)),
    seed_row(OPTIM),
    Choice(
        ("precision",),
        (
            Case(("bf16",), {"torch_dtype": "bfloat16", "bf16": True}, "bf16 weights and autocast"),
            Case(("fp16",), {"torch_dtype": "float16", "fp16": True}, "fp16 with loss scaling"),
            Case(
                ("fp32",),
                {"torch_dtype": "float32", "bf16": False, "fp16": False},
                "float32 alone would turn fp16 on",
            ),
        ),
        when=hf,
        group=KERNELS,
    ),
    Key(
        "attention",
        "attn_impl",
        "attention kernel",
        codec=mapped({"flash": "flash_attention_2", "sdpa": "sdpa", "eager": "eager"}),
        when=hf,
        group=KERNELS,
    ),
    compile_row(KERNELS),
    Key("liger", "use_liger_kernel", "Liger's fused kernels", when=hf, absent=False, group=KERNELS),
    Choice(("zero_stage", "fsdp", "offload", "gradient_checkpointing"), _shardings(), when=hf, group=SPREAD),
    *(
        Const(f"fsdp.fsdp_config.{key}", value, "", when=lambda p: hf(p) and p.fsdp, group=SPREAD)
        for key, value in FSDP.items()
    ),
    *(
        Const(f"deepspeed.{key}", value, "", when=_zero3_optimizer, group=SPREAD)
        for key, value in ZERO3_OPTIMIZER.items()
    ),
    Key(
        "context_parallel",
        "sequence_parallel_size",
        "GPUs that split each sequence",
        when=lambda p: hf(p) and p.context_parallel > 1,
        group=SPREAD,
    ),
)

SAVE_ROWS: tuple[Row, ...] = (
    Derived("output_dir", lambda p, j: j.output_dir, "checkpoints and the final model", group=SAVE),
    Const("add_version", False, "no vN-timestamp folder below it", group=SAVE),
    Const("save_safetensors", True, "checkpoints are Hugging Face files", when=megatron, group=SAVE),
    Const("merge_lora", False, "save the adapter alone, not a merged model",
          when=lambda p: megatron(p) and p.uses_adapter, group=SAVE),
    Key("save_steps", "save_steps", "steps between checkpoints", group=SAVE),
    Const("save_total_limit", 2, "older checkpoints are deleted", group=SAVE),
    Key("logging_steps", "logging_steps", "steps between log lines", group=SAVE),
    Derived("report_to", report_to, "experiment tracker", group=SAVE),
    Derived("run_name", only(hf, lambda p, j: j.run_name), "name of the run in the tracker", group=SAVE),
    *(
        Derived(
            f"{tracker}_exp_name",
            _run_name(tracker),
            "name of the run in the tracker",
            group=SAVE,
        )
        for tracker in ("wandb", "swanlab")
    ),
    *size_rows(),
)  # fmt: skip

TABLE = Table(NAME, (*MODEL_ROWS, *DATA_ROWS, *METHOD_ROWS, *HF_ROWS, *MEGATRON_ROWS, *SAVE_ROWS))
