"""Hugging Face TRL: `trl <method> --config train.yaml`, launched by accelerate.

Methods that its command line lacks (orpo, simpo, cpo) read the same YAML through a small train.py
around TRL's own parser and experimental trainers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from advisor.facts.lora import expert_parameter_names, linear_module_names
from advisor.frameworks.base import DataNeed, Emitted, Smoke, data_kind
from advisor.frameworks.table import (
    ABSENT,
    LIST,
    REPO,
    Case,
    Choice,
    Const,
    Derived,
    Job,
    Key,
    Rendered,
    Table,
    mapped,
)
from advisor.plan import Plan
from advisor.rendering import render

NAME = "trl"
JUDGE = "trl.py"

SUBCOMMANDS = {
    "cpt": "sft",
    "sft": "sft",
    "dpo": "dpo",
    "ipo": "dpo",
    "kto": "kto",
    "rm": "reward",
    "grpo": "grpo",
    "dapo": "grpo",
    "gspo": "grpo",
    "dr-grpo": "grpo",
    "rloo": "rloo",
    "gkd": "distillation",
}
EXPERIMENTAL = {"orpo": ("orpo", "ORPO"), "simpo": ("cpo", "CPO"), "cpo": ("cpo", "CPO")}
"""Plan method -> (module, class prefix) below trl.experimental."""

READS = {
    "text": ("text",),
    "conversation": ("prompt-completion", "messages", "sharegpt"),
    "preference": ("preference", "preference-messages"),
    "label": ("kto",),
    "prompts": ("rl-prompts",),
}
TARGET_PARAMETERS = "lora_target_parameters"


def _adapter(plan: Plan) -> bool:
    return plan.uses_adapter


def _quantized(plan: Plan) -> bool:
    return plan.quantization != "none"


def _offline_length(plan: Plan) -> bool:
    return not plan.online and plan.method != "gkd"


def _generates(plan: Plan) -> bool:
    return plan.online or plan.method == "gkd"


def _fsdp(plan: Plan) -> bool:
    return plan.fsdp


def _deepspeed(plan: Plan) -> bool:
    return plan.zero_stage > 0 and not plan.fsdp


def _several_nodes(plan: Plan) -> bool:
    return plan.nodes > 1


def _has_command(plan: Plan) -> bool:
    return plan.method in SUBCOMMANDS


def _has_beta(plan: Plan) -> bool:
    return plan.method not in ("cpt", "sft", "rm", "gkd")


def _dtype(plan: Plan, job: Job) -> str:
    half = {"fp16": "float16", "fp32": "float32"}.get(plan.precision, "bfloat16")
    return half if plan.uses_adapter or plan.param_dtype != "fp32" else "float32"


def _modules(plan: Plan, job: Job) -> Any:
    if not plan.uses_adapter:
        return ABSENT
    return linear_module_names(job.model, plan.lora_targets)


def _expert_parameters(plan: Plan, job: Job) -> Any:
    if not plan.uses_adapter or plan.lora_targets != ("experts",):
        return ABSENT
    return expert_parameter_names(job.model)


def _datasets(plan: Plan, job: Job) -> Any:
    if not job.data_local:
        return [{"path": job.data_path, "split": "train"}]
    return [{"path": "json", "data_files": job.data_path, "split": "train"}]


def _assistant_only(plan: Plan, job: Job) -> Any:
    multi_turn = plan.method == "sft" and job.data_format in ("messages", "sharegpt")
    return True if multi_turn else ABSENT


def _rewards(plan: Plan, job: Job) -> Any:
    return ["reward_adapter.reward"] if plan.online and job.reward else ABSENT


def _pad_multiple(plan: Plan, job: Job) -> Any:
    return 2 * plan.context_parallel if plan.context_parallel > 1 else ABSENT


MODEL, DATA, BATCH, OPTIM, METHOD, KERNELS, SAVE, LAUNCH = (
    "Model",
    "Data",
    "Batch",
    "Optimization",
    "Method",
    "Precision and kernels",
    "Logging and checkpoints",
    "Launch",
)

TABLE = Table(
    NAME,
    (
        Derived("model_name_or_path", lambda p, j: j.model_path, "the model to start from", group=MODEL),
        Derived("dtype", _dtype, "TRL loads float32 unless told", group=MODEL),
        Choice(
            ("tuning", "quantization"),
            (
                Case(("full", "none"), {"use_peft": ABSENT}),
                Case(("lora", "none"), {"use_peft": True}),
                Case(("dora", "none"), {"use_peft": True, "use_dora": True}),
                Case(
                    ("qlora", "4bit"),
                    {
                        "use_peft": True,
                        "load_in_4bit": True,
                        "bnb_4bit_quant_type": "nf4",
                        "use_bnb_nested_quant": True,
                    },
                    "4-bit NF4 base with adapters",
                ),
                Case(("qlora", "8bit"), {"use_peft": True, "load_in_8bit": True}, "8-bit base with adapters"),
            ),
            "train low-rank adapters instead of all weights",
            group=MODEL,
        ),
        Key("lora_rank", "lora_r", "rank of the adapters", when=_adapter, group=MODEL),
        Key(
            "lora_alpha", "lora_alpha", "adapter output is scaled by alpha / rank", when=_adapter, group=MODEL
        ),
        Key("lora_dropout", "lora_dropout", "0 keeps fused paths usable", when=_adapter, group=MODEL),
        Key("lora_targets", "lora_targets", "", document=REPO, codec=LIST, when=_adapter),
        Derived(
            "lora_target_modules", _modules, "modules that get adapters, named: no guess by peft", group=MODEL
        ),
        Derived(
            TARGET_PARAMETERS, _expert_parameters, "routed experts are fused 3-D parameters", group=MODEL
        ),
        Const(
            "lora_task_type",
            "SEQ_CLS",
            "a reward model is a sequence classifier",
            when=lambda p: p.uses_adapter and p.method == "rm",
            group=MODEL,
        ),
        Derived("datasets", _datasets, "the training rows", group=DATA),
        Key(
            "seq_len",
            "max_length",
            "tokens per sample; TRL's default cuts at 1024",
            when=_offline_length,
            group=DATA,
        ),
        Choice(
            ("packing",),
            (Case((True,), {"packing": True}), Case((False,), {"packing": ABSENT})),
            "fill each sequence with several samples",
            group=DATA,
        ),
        Derived("pad_to_multiple_of", _pad_multiple, "context parallel splits 2 x CP ways", group=DATA),
        Derived("assistant_only_loss", _assistant_only, "learn the assistant turns only", group=DATA),
        Choice(
            ("method",),
            (
                Case(
                    ("cpt",), {"command:subcommand": "sft", "dataset_text_field": "text"}, "raw text column"
                ),
                Case(("sft",), {"command:subcommand": "sft", "dataset_text_field": ABSENT}),
                Case(("dpo",), {"command:subcommand": "dpo", "loss_type": ["sigmoid"]}, "the DPO loss"),
                Case(
                    ("ipo",), {"command:subcommand": "dpo", "loss_type": ["ipo"]}, "IPO is a DPO loss in TRL"
                ),
                Case(("kto",), {"command:subcommand": "kto"}),
                Case(("rm",), {"command:subcommand": "reward"}),
                Case(("orpo",), {"command:subcommand": "train.py", "command:trainer": "orpo"}),
                Case(
                    ("simpo",),
                    {
                        "command:subcommand": "train.py",
                        "command:trainer": "cpo",
                        "loss_type": "simpo",
                        "cpo_alpha": 0.0,
                    },
                    "SimPO is a CPO loss in TRL; alpha 0 drops the SFT term",
                ),
                Case(
                    ("cpo",),
                    {"command:subcommand": "train.py", "command:trainer": "cpo", "loss_type": "sigmoid"},
                    "the CPO loss",
                ),
                Case(
                    ("grpo",),
                    {"command:subcommand": "grpo", "loss_type": "grpo"},
                    "the loss of the GRPO paper",
                ),
                Case(
                    ("dapo",),
                    {
                        "command:subcommand": "grpo",
                        "loss_type": "dapo",
                        "epsilon_high": 0.28,
                        "mask_truncated_completions": True,
                    },
                    "DAPO: token-level loss, wider upper clip, cut answers are ignored",
                ),
                Case(
                    ("gspo",),
                    {
                        "command:subcommand": "grpo",
                        "loss_type": "grpo",
                        "importance_sampling_level": "sequence",
                        "epsilon": 3.0e-4,
                        "epsilon_high": 4.0e-4,
                    },
                    "GSPO: importance ratio per sequence, hence small clips",
                ),
                Case(
                    ("dr-grpo",),
                    {"command:subcommand": "grpo", "loss_type": "dr_grpo", "scale_rewards": "none"},
                    "Dr. GRPO: no length or deviation normalisation",
                ),
                Case(("rloo",), {"command:subcommand": "rloo"}),
                Case(("gkd",), {"command:subcommand": "distillation"}),
            ),
            group=METHOD,
        ),
        Key("beta", "beta", "strength of the preference or KL term", when=_has_beta, group=METHOD),
        Derived(
            "teacher_model_name_or_path",
            lambda p, j: j.teacher if p.method == "gkd" else ABSENT,
            "the model to learn from",
            group=METHOD,
        ),
        Derived("reward_funcs", _rewards, "the function that scores answers", group=METHOD),
        Derived(
            "reward_model_name_or_path",
            lambda p, j: (j.reward_model or ABSENT) if p.online else ABSENT,
            "the model that scores answers",
            group=METHOD,
        ),
        Key(
            "generations",
            "num_generations",
            "answers per prompt",
            when=lambda p: p.online,
            absent=0,
            group=METHOD,
        ),
        Key(
            "response_len",
            "max_completion_length",
            "longest answer, tokens",
            when=_generates,
            absent=0,
            group=METHOD,
        ),
        Key("prompt_len", "prompt_len", "", document=REPO, absent=0),
        Const(
            "log_completions",
            False,
            "true prints sampled answers while training",
            when=lambda p: p.online,
            group=METHOD,
        ),
        Key(
            "rollout_sleep",
            "vllm_enable_sleep_mode",
            "vLLM gives its memory back while the policy trains",
            when=lambda p: p.rollout_engine == "vllm",
            absent=False,
            group=METHOD,
        ),
        Choice(
            ("rollout_engine",),
            (
                Case(("none",), {"use_vllm": ABSENT}),
                Case(("hf",), {"use_vllm": False}, "transformers generates the answers"),
                Case(("vllm",), {"use_vllm": True, "vllm_mode": "colocate"}, "vLLM shares the training GPUs"),
            ),
            group=METHOD,
        ),
        Key(
            "rollout_memory_fraction",
            "vllm_gpu_memory_utilization",
            "share of each GPU that vLLM may take",
            when=lambda p: p.rollout_engine == "vllm",
            absent=0.0,
            group=METHOD,
        ),
        Key(
            "rollout_tensor_parallel",
            "vllm_tensor_parallel_size",
            "GPUs that share one vLLM engine",
            when=lambda p: p.rollout_engine == "vllm",
            absent=1,
            group=METHOD,
        ),
        Key("micro_batch_size", "per_device_train_batch_size", "sequences per GPU and pass", group=BATCH),
        Key(
            "gradient_accumulation_steps",
            "gradient_accumulation_steps",
            "passes per optimizer step",
            group=BATCH,
        ),
        Key("epochs", "num_train_epochs", "passes over the data", group=BATCH),
        Key("learning_rate", "learning_rate", "peak learning rate", group=OPTIM),
        Key("lr_scheduler", "lr_scheduler_type", "shape of the learning rate", group=OPTIM),
        Key("warmup_ratio", "warmup_steps", "below 1: share of all steps", group=OPTIM),
        Key("weight_decay", "weight_decay", "decoupled weight decay", group=OPTIM),
        Key("max_grad_norm", "max_grad_norm", "gradients are scaled down to this norm", group=OPTIM),
        Key(
            "optimizer",
            "optim",
            "optimizer and its implementation",
            codec=mapped(
                {
                    "adamw": "adamw_torch_fused",
                    "adamw_foreach": "adamw_torch",
                    "adamw_8bit": "adamw_8bit",
                    "paged_adamw_8bit": "paged_adamw_8bit",
                    "adafactor": "adafactor",
                }
            ),
            group=OPTIM,
        ),
        Key("seed", "seed", "shuffling and initialisation", group=OPTIM),
        Choice(
            ("precision",),
            (
                Case(("bf16",), {"bf16": True, "fp16": ABSENT}, "bf16 autocast"),
                Case(
                    ("bf16-pure",),
                    {"bf16": False, "fp16": ABSENT, "bf16_full_eval": True},
                    "weights are bf16: no autocast",
                ),
                Case(("fp16",), {"bf16": False, "fp16": True}, "fp16 autocast with loss scaling"),
                Case(("fp32",), {"bf16": False, "fp16": False}, "no mixed precision"),
            ),
            group=KERNELS,
        ),
        Key(
            "attention",
            "attn_implementation",
            "attention kernel",
            codec=mapped({"flash": "kernels-community/flash-attn2", "sdpa": "sdpa", "eager": "eager"}),
            group=KERNELS,
        ),
        Choice(
            ("liger",),
            (
                Case((True,), {"model_init_kwargs": {"use_kernels": True}}, "fused kernels from the Hub"),
                Case((False,), {"model_init_kwargs": ABSENT}),
            ),
            group=KERNELS,
        ),
        Choice(
            ("gradient_checkpointing", "fsdp"),
            (
                Case((True, False), {"gradient_checkpointing": True}, "recompute activations in backward"),
                Case((False, False), {"gradient_checkpointing": False}, "keep activations: faster"),
                Case(
                    (True, True),
                    {
                        "gradient_checkpointing": False,
                        "accelerate:distributed_type": "FSDP",
                        "accelerate:fsdp_config.fsdp_version": 2,
                        "accelerate:fsdp_config.fsdp_activation_checkpointing": True,
                    },
                    "under FSDP, accelerate recomputes activations",
                ),
                Case(
                    (False, True),
                    {
                        "gradient_checkpointing": False,
                        "accelerate:distributed_type": "FSDP",
                        "accelerate:fsdp_config.fsdp_version": 2,
                        "accelerate:fsdp_config.fsdp_activation_checkpointing": False,
                    },
                    "FSDP2 without recomputation",
                ),
            ),
            group=KERNELS,
        ),
        Derived("output_dir", lambda p, j: j.output_dir, "checkpoints and the final model", group=SAVE),
        Key("save_steps", "save_steps", "steps between checkpoints", group=SAVE),
        Const("save_total_limit", 2, "older checkpoints are deleted", group=SAVE),
        Key("logging_steps", "logging_steps", "steps between log lines", group=SAVE),
        Derived("report_to", lambda p, j: j.tracker, "experiment tracker", group=SAVE),
        Derived("run_name", lambda p, j: j.run_name, "name of the run in the tracker", group=SAVE),
        Const(
            "accelerate_config",
            "accelerate.yaml",
            "how processes are started",
            when=_has_command,
            group=LAUNCH,
        ),
        # accelerate.yaml
        Const("compute_environment", "LOCAL_MACHINE", "", document="accelerate"),
        Derived("distributed_type", lambda p, j: _distributed_type(p), "", document="accelerate"),
        Derived(
            "mixed_precision",
            lambda p, j: {"bf16": "bf16", "fp16": "fp16"}.get(p.precision, "no"),
            "as in train.yaml",
            document="accelerate",
        ),
        Key("nodes", "num_machines", "machines", document="accelerate"),
        Derived(
            "num_processes",
            lambda p, j: p.world_size,
            "one process per GPU, all machines together",
            document="accelerate",
        ),
        Key("gpus_per_node", "gpus_per_node", "", document=REPO),
        Const("machine_rank", 0, "run.sh sets it on every machine", document="accelerate"),
        Const(
            "main_process_ip",
            "127.0.0.1",
            "run.sh sets it: the first node",
            "accelerate",
            when=_several_nodes,
        ),
        Const("main_process_port", 29500, "run.sh sets it", document="accelerate", when=_several_nodes),
        Const("main_training_function", "main", "", document="accelerate"),
        Const("rdzv_backend", "static", "", document="accelerate"),
        Const("same_network", True, "", document="accelerate"),
        Const("use_cpu", False, "", document="accelerate"),
        Choice(
            ("zero_stage",),
            tuple(
                Case(
                    (stage,),
                    {"accelerate:deepspeed_config.zero_stage": stage if stage else ABSENT},
                    "what the ranks shard",
                )
                for stage in (0, 1, 2, 3)
            ),
            when=lambda p: not p.fsdp,
        ),
        Choice(
            ("offload",),
            (
                Case(("none",), {}),
                Case(
                    ("optimizer",),
                    {
                        "accelerate:deepspeed_config.offload_optimizer_device": "cpu",
                        "accelerate:deepspeed_config.offload_param_device": "none",
                    },
                    "optimizer states and step in host memory",
                ),
                Case(
                    ("all",),
                    {
                        "accelerate:deepspeed_config.offload_optimizer_device": "cpu",
                        "accelerate:deepspeed_config.offload_param_device": "cpu",
                    },
                    "weights too in host memory",
                ),
            ),
            when=lambda p: not p.fsdp,
        ),
        Key(
            "offload",
            "fsdp_config.fsdp_offload_params",
            "weights, gradients and states in host memory",
            document="accelerate",
            codec=mapped({"none": False, "all": True}),
            when=_fsdp,
        ),
        Const(
            "fsdp_config.fsdp_auto_wrap_policy",
            "TRANSFORMER_BASED_WRAP",
            "one unit per decoder layer",
            document="accelerate",
            when=_fsdp,
        ),
        Const(
            "fsdp_config.fsdp_reshard_after_forward",
            True,
            "weights are gathered again in backward",
            document="accelerate",
            when=_fsdp,
        ),
        Const(
            "fsdp_config.fsdp_cpu_ram_efficient_loading",
            True,
            "one rank reads the checkpoint",
            document="accelerate",
            when=_fsdp,
        ),
        Const(
            "fsdp_config.fsdp_state_dict_type",
            "FULL_STATE_DICT",
            "checkpoints are ordinary model files",
            document="accelerate",
            when=_fsdp,
        ),
        Derived(
            "parallelism_config.parallelism_config_cp_size",
            lambda p, j: p.context_parallel if p.context_parallel > 1 else ABSENT,
            "ranks that split the sequence",
            document="accelerate",
        ),
        Derived(
            "parallelism_config.parallelism_config_dp_shard_size",
            lambda p, j: p.data_parallel if p.context_parallel > 1 else ABSENT,
            "ranks that shard the weights",
            document="accelerate",
        ),
        Key("context_parallel", "context_parallel", "", document=REPO),
        Const(
            "deepspeed_config.zero3_init_flag",
            True,
            "weights are sharded while they load",
            document="accelerate",
            when=lambda p: _deepspeed(p) and p.zero_stage == 3,
        ),
        Const(
            "deepspeed_config.zero3_save_16bit_model",
            True,
            "gather the weights when saving",
            document="accelerate",
            when=lambda p: _deepspeed(p) and p.zero_stage == 3,
        ),
        Const(
            "deepspeed_config.deepspeed_multinode_launcher",
            "standard",
            "run.sh starts every machine",
            document="accelerate",
            when=lambda p: _deepspeed(p) and p.nodes > 1,
        ),
    ),
)


def _distributed_type(plan: Plan) -> str:
    if plan.fsdp:
        return "FSDP"
    if plan.zero_stage:
        return "DEEPSPEED"
    return "MULTI_GPU" if plan.world_size > 1 else "NO"


def data_need(plan: Plan) -> DataNeed:
    if plan.method == "gkd":  # the student answers the prompt itself, so prompts must stand apart
        return DataNeed(("prompt-completion",))
    return DataNeed(READS[data_kind(plan.method)])


def command(plan: Plan, job: Job) -> Sequence[str]:
    if _has_command(plan):
        return ("trl", SUBCOMMANDS[plan.method], "--config", "train.yaml")
    return ("accelerate", "launch", "--config_file", "accelerate.yaml", "train.py", "--config", "train.yaml")


def files(plan: Plan, job: Job, rendered: Rendered) -> Sequence[Emitted]:
    train = render("trl/train.yaml.jinja", document=rendered["train"], command=command(plan, job), job=job)
    accelerate = render("trl/accelerate.yaml.jinja", document=rendered["accelerate"])
    emitted = [
        Emitted("train.yaml", "config", train),
        Emitted("accelerate.yaml", "accelerate", accelerate),
    ]
    if not _has_command(plan):
        module, prefix = EXPERIMENTAL[plan.method]
        emitted.append(
            Emitted("train.py", "script", render("trl/train.py.jinja", module=module, prefix=prefix))
        )
    if plan.online and job.reward:
        function = job.reward.rpartition(":")[2]
        adapter = render("trl/reward_adapter.py.jinja", function=function)
        emitted.append(Emitted("reward_adapter.py", "reward", adapter))
    return emitted


def smoke(plan: Plan, job: Job) -> Smoke:
    return Smoke(rl=plan.online)


def context(plan: Plan, job: Job, rendered: Rendered) -> Mapping[str, Any]:
    return {"has_command": _has_command(plan), "quantized": _quantized(plan)}
