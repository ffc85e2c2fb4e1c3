"""verl: hydra overrides, one a line, for `verl.trainer.main_ppo` (online RL on Ray) or `verl.trainer.sft_trainer`.

The same plan field has its key in one of four places: RL or SFT, PyTorch FSDP2 or Megatron; rows come in
pairs accordingly. `train.sh` holds the overrides with their reasons and is what the judge reads.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from advisor.errors import CannotExpress
from advisor.facts import rows
from advisor.facts.lora import expert_parameter_names, linear_module_names
from advisor.facts.types import ModelFacts
from advisor.frameworks.base import DataNeed, Emitted, Smoke
from advisor.frameworks.table import (
    ABSENT,
    FLOAT,
    LIST,
    REPO,
    SAME,
    Case,
    Choice,
    Codec,
    Const,
    Derived,
    Job,
    Key,
    Line,
    Rendered,
    Row,
    Table,
    When,
    always,
    mapped,
)
from advisor.plan import Plan
from advisor.rendering import render

NAME = "verl"
JUDGE = "verl.py"

PPO, SFT = "verl.trainer.main_ppo", "verl.trainer.sft_trainer"
DATA_FILE = "data/train.parquet"
REWARD_FILE = "reward_verl.py"
ACTOR, MODEL = "actor_rollout_ref.actor", "actor_rollout_ref.model"
ROLLOUT, REF = "actor_rollout_ref.rollout", "actor_rollout_ref.ref"

KL_IN_REWARD = ("ppo", "rloo", "reinforce++")
"""Methods that take the KL term off the reward; the others add it to the loss."""

ADDED = re.compile(
    r"override_(transformer|optimizer)_config\.|\.target_parameters$|\.mixed_precision$|^reward\.reward_kwargs\."
)
"""Keys that verl's own configuration does not list: hydra wants `++` before them."""
LISTED = ("recompute_granularity", "recompute_method", "recompute_num_layers", "attention_backend")
"""... but these it does list."""


def _rl(plan: Plan) -> bool:
    return plan.online


def _sft(plan: Plan) -> bool:
    return not plan.online


def _adapter(plan: Plan) -> bool:
    return plan.uses_adapter


def _megatron(plan: Plan) -> bool:
    return plan.backend == "megatron"


def _hf(plan: Plan) -> bool:
    return not _megatron(plan)


def _ulysses(plan: Plan) -> bool:
    return _hf(plan) and plan.context_parallel > 1


def _critic(plan: Plan) -> bool:
    return plan.method == "ppo"


def _kl_loss(plan: Plan) -> bool:
    return plan.online and plan.method not in KL_IN_REWARD


def _kl_reward(plan: Plan) -> bool:
    return plan.method in KL_IN_REWARD


def _reference(plan: Plan) -> bool:
    """Whether a model of its own is kept as reference; adapters are switched off instead."""
    return plan.online and plan.beta > 0 and not plan.uses_adapter


def _all(*conditions: When) -> When:
    return lambda plan: all(condition(plan) for condition in conditions)


def _whole(value: float) -> int:
    if value != int(value):
        raise CannotExpress(NAME, [("epochs", f"trainer.total_epochs counts whole epochs, not {value}")])
    return int(value)


EPOCHS = Codec(_whole, float, (1.0, 3.0))

TASK, MODELS, DATA, BATCH, OPTIM, ROLLOUTS, REWARDS, MEMORY, PARALLEL, SAVE = (
    "Method",
    "Model",
    "Data",
    "Batch",
    "Optimization",
    "Rollouts (vLLM)",
    "Rewards",
    "Precision and memory",
    "Parallelism",
    "Logging and checkpoints",
)


def pair(
    field: str, rl: str, sft: str, why: str, group: str, when: When = always, codec: Codec = SAME
) -> tuple[Row, ...]:
    """One plan field whose key lies elsewhere in RL and in SFT."""
    return tuple(
        Key(field, key, why, codec=codec, when=_all(kind, when), group=group)
        for key, kind in ((rl, _rl), (sft, _sft))
    )


def choice(
    fields: tuple[str, ...],
    rl: str,
    sft: str,
    cases: Sequence[tuple[tuple[Any, ...], Mapping[str, Any], str]],
    group: str,
    when: When = always,
) -> tuple[Row, ...]:
    """A Choice whose keys lie below `rl` in RL and below `sft` in SFT."""
    return tuple(
        Choice(
            fields,
            tuple(
                Case(values, {f"{prefix}.{key}" if prefix else key: v for key, v in keys.items()}, why)
                for values, keys, why in cases
            ),
            group=group,
            when=_all(kind, when),
        )
        for prefix, kind in ((rl, _rl), (sft, _sft))
    )


def derived(
    rl: str, sft: str, compute: Callable[[Plan, Job], Any], why: str, group: str, when: When = always
) -> tuple[Row, ...]:
    """A computed key that lies elsewhere in RL and in SFT; an empty name: it is not there."""

    def only(kind: When) -> Callable[[Plan, Job], Any]:
        return lambda p, j: compute(p, j) if kind(p) and when(p) else ABSENT

    rows = ((rl, _rl), (sft, _sft))
    return tuple(Derived(key, only(kind), why, group=group) for key, kind in rows if key)


def critic(
    key: str,
    compute: Callable[[Plan, Job], Any],
    group: str,
    when: When = always,
    why: str = "the critic does as the actor",
) -> Row:
    """A key of PPO's critic."""
    return Derived(
        f"critic.{key}", lambda p, j: compute(p, j) if _critic(p) and when(p) else ABSENT, why, group=group
    )


def _tokens(plan: Plan, job: Job) -> int:
    """Token budget of a pass: `micro_batch_size` sequences of full length; context-parallel ranks share it."""
    return -(-plan.micro_batch_size * plan.seq_len // plan.context_parallel)


def _prompts(plan: Plan, job: Job) -> int:
    return max(1, plan.global_batch_size // max(1, plan.generations))


def _modules(plan: Plan, job: Job) -> Any:
    return linear_module_names(job.model, plan.lora_targets) if _adapter(plan) and _hf(plan) else ABSENT


def _expert_parameters(plan: Plan, job: Job) -> Any:
    if not _adapter(plan) or _megatron(plan) or plan.lora_targets != ("experts",):
        return ABSENT
    return expert_parameter_names(job.model)


def _megatron_modules(plan: Plan, job: Job) -> Any:
    """Megatron-core's names: one fused matrix for query, key and value, one for gate and up."""
    if not _adapter(plan) or _hf(plan):
        return ABSENT
    words = [word for word in plan.lora_targets if word not in ("all-linear", "attention", "experts")]
    if words:
        raise CannotExpress(NAME, [("lora_targets", f"Megatron-core has no module {', '.join(words)}")])
    attention = ["linear_qkv", "linear_proj"]
    if job.model.mla:
        compressed = bool(job.model.config.get("q_lora_rank"))
        query = ["linear_q_down_proj", "linear_q_up_proj"] if compressed else ["linear_q_proj"]
        attention = [*query, "linear_kv_down_proj", "linear_kv_up_proj", "linear_proj"]
    return attention if plan.lora_targets == ("attention",) else [*attention, "linear_fc1", "linear_fc2"]


def _start_adapter(plan: Plan, job: Job) -> Any:
    return (job.adapter or ABSENT) if _adapter(plan) else ABSENT


def _merged(plan: Plan, job: Job) -> Any:
    """Adapters inside experts are folded into the weights that vLLM gets: it needs no adapter format for them."""
    if not (_adapter(plan) and _megatron(plan) and plan.online):
        return ABSENT
    return True if plan.lora_targets == ("experts",) else ABSENT


def _megatron_setting(holds: Callable[[ModelFacts], Any], key: str, value: Any, why: str) -> tuple[Row, ...]:
    """A setting that Megatron needs for models of one kind."""
    name = f"override_transformer_config.{key}"
    return derived(
        f"{ACTOR}.megatron.{name}",
        f"engine.{name}",
        lambda p, j: value if holds(j.model) else ABSENT,
        why,
        PARALLEL,
        _megatron,
    )


def _reward_model(key: str, compute: Callable[[Plan], Any], why: str) -> Row:
    return Derived(
        f"reward.reward_model.{key}",
        lambda p, j: compute(p) if p.online and j.reward_model else ABSENT,
        why,
        group=REWARDS,
    )


def _custom_reward(key: str, value: str, why: str) -> Row:
    return Derived(
        f"reward.custom_reward_function.{key}",
        lambda p, j: value if p.online and j.reward else ABSENT,
        why,
        group=REWARDS,
    )


def _dapo(key: str, compute: Callable[[Plan], Any], why: str) -> Row:
    return Derived(
        f"reward.reward_kwargs.{key}",
        lambda p, j: compute(p) if p.method == "dapo" else ABSENT,
        why,
        group=REWARDS,
    )


def _filter_groups(value: Any) -> Callable[[Plan, Job], Any]:
    return lambda p, j: value if p.method == "dapo" and j.reward else ABSENT


def _logger(plan: Plan, job: Job) -> list[str]:
    return ["console"] if job.tracker == "none" else ["console", job.tracker]


RECOMPUTE = "override_transformer_config.recompute"
PIPELINE = "override_transformer_config.num_layers_in"
HOST_STEP = "override_optimizer_config"

METHODS = (
    Case(("sft",), {"command:module": SFT}),
    Case(
        ("ppo",),
        {
            "command:module": PPO,
            "algorithm.adv_estimator": "gae",
            f"{ACTOR}.loss_agg_mode": "token-mean",
        },
        "PPO: advantages from a critic",
    ),
    Case(
        ("grpo",),
        {
            "command:module": PPO,
            "algorithm.adv_estimator": "grpo",
            f"{ACTOR}.loss_agg_mode": "seq-mean-token-mean",
        },
        "GRPO as in its paper: advantages within the group, mean over each answer",
    ),
    Case(
        ("dapo",),
        {
            "command:module": PPO,
            "algorithm.adv_estimator": "grpo",
            f"{ACTOR}.loss_agg_mode": "token-mean",
            f"{ACTOR}.clip_ratio_low": 0.2,
            f"{ACTOR}.clip_ratio_high": 0.28,
        },
        "DAPO: token-level loss, wider upper clip",
    ),
    Case(
        ("gspo",),
        {
            "command:module": PPO,
            "algorithm.adv_estimator": "grpo",
            f"{ACTOR}.loss_agg_mode": "seq-mean-token-mean",
            f"{ACTOR}.policy_loss.loss_mode": "gspo",
            f"{ACTOR}.clip_ratio_low": 3.0e-4,
            f"{ACTOR}.clip_ratio_high": 4.0e-4,
        },
        "GSPO: importance ratio per sequence, hence small clips",
    ),
    Case(
        ("dr-grpo",),
        {
            "command:module": PPO,
            "algorithm.adv_estimator": "grpo",
            "algorithm.norm_adv_by_std_in_grpo": False,
            f"{ACTOR}.loss_agg_mode": "seq-mean-token-sum-norm",
        },
        "Dr. GRPO: no length or deviation normalisation",
    ),
    Case(
        ("rloo",),
        {
            "command:module": PPO,
            "algorithm.adv_estimator": "rloo",
            f"{ACTOR}.loss_agg_mode": "token-mean",
        },
        "RLOO: the other answers of the group are the baseline",
    ),
    Case(
        ("reinforce++",),
        {
            "command:module": PPO,
            "algorithm.adv_estimator": "reinforce_plus_plus",
            f"{ACTOR}.loss_agg_mode": "token-mean",
        },
        "REINFORCE++: advantages normalised over the batch",
    ),
)

METHOD_ROWS: tuple[Row, ...] = (
    Choice(("method",), METHODS, group=TASK),
    Derived(
        f"{ACTOR}.use_kl_loss",
        lambda p, j: p.beta > 0 if _kl_loss(p) else ABSENT,
        "a KL term keeps the policy near the reference; without one there is no reference",
        group=TASK,
    ),
    Key("beta", f"{ACTOR}.kl_loss_coef", "weight of the KL term", when=_kl_loss, group=TASK),
    Derived(
        "algorithm.use_kl_in_reward",
        lambda p, j: p.beta > 0 if _kl_reward(p) else ABSENT,
        "the KL term is taken off the reward",
        group=TASK,
    ),
    Key("beta", "algorithm.kl_ctrl.kl_coef", "weight of the KL term", when=_kl_reward, group=TASK),
    Derived(
        "algorithm.filter_groups.enable",
        _filter_groups(True),
        "DAPO: prompts whose answers all score the same are drawn again",
        group=TASK,
    ),
    Derived(
        "algorithm.filter_groups.metric", _filter_groups("acc"), "what must differ: the score", group=TASK
    ),
)

MODEL_ROWS: tuple[Row, ...] = (
    *derived(f"{MODEL}.path", "model.path", lambda p, j: j.model_path, "the model to start from", MODELS),
    critic("model.path", lambda p, j: j.model_path, MODELS, why="the critic starts from the same weights"),
    Key("tuning", "tuning", "", document=REPO, codec=mapped({"full": "full", "lora": "lora"})),
    Key("lora_targets", "lora_targets", "", document=REPO, codec=LIST, when=_adapter),
    *pair(
        "lora_rank",
        f"{MODEL}.lora_rank",
        "model.lora_rank",
        "rank of the adapters",
        MODELS,
        _all(_adapter, _hf),
    ),
    *pair(
        "lora_alpha",
        f"{MODEL}.lora_alpha",
        "model.lora_alpha",
        "adapter output is scaled by alpha / rank",
        MODELS,
        _all(_adapter, _hf),
    ),
    *pair(
        "lora_rank",
        f"{MODEL}.lora.rank",
        "model.lora.rank",
        "rank of the adapters (Megatron reads model.lora.*)",
        MODELS,
        _all(_adapter, _megatron),
    ),
    *pair(
        "lora_alpha",
        f"{MODEL}.lora.alpha",
        "model.lora.alpha",
        "adapter output is scaled by alpha / rank",
        MODELS,
        _all(_adapter, _megatron),
    ),
    *pair(
        "lora_dropout",
        f"{MODEL}.lora.dropout",
        "model.lora.dropout",
        "dropout on the adapters' input",
        MODELS,
        _all(_adapter, _megatron),
    ),
    *derived(
        f"{MODEL}.target_modules",
        "model.target_modules",
        _modules,
        "modules that get adapters, named: no guess by peft",
        MODELS,
    ),
    *derived(
        "", "model.target_parameters", _expert_parameters, "routed experts are fused 3-D parameters", MODELS
    ),
    *derived(
        f"{MODEL}.lora.target_modules",
        "model.lora.target_modules",
        _megatron_modules,
        "modules that get adapters, by Megatron-core's names",
        MODELS,
    ),
    *derived(f"{MODEL}.lora.merge", "", _merged, "vLLM gets weights with the adapters folded in", MODELS),
    *derived(
        f"{MODEL}.lora_adapter_path",
        "model.lora_adapter_path",
        _start_adapter,
        "adapter to go on from",
        MODELS,
        _hf,
    ),
    *derived(
        f"{MODEL}.lora.adapter_path",
        "model.lora.adapter_path",
        _start_adapter,
        "adapter to go on from",
        MODELS,
        _megatron,
    ),
    critic("model.lora_rank", lambda p, j: p.lora_rank, MODELS, _all(_adapter, _hf)),
    critic("model.lora_alpha", lambda p, j: p.lora_alpha, MODELS, _all(_adapter, _hf)),
    critic("model.target_modules", _modules, MODELS),
    critic("model.lora.rank", lambda p, j: p.lora_rank, MODELS, _all(_adapter, _megatron)),
    critic("model.lora.alpha", lambda p, j: p.lora_alpha, MODELS, _all(_adapter, _megatron)),
    critic("model.lora.target_modules", _megatron_modules, MODELS),
)

DATA_ROWS: tuple[Row, ...] = (
    Const("data.train_files", DATA_FILE, "your rows, as prepare_data.py writes them", group=DATA),
    Const(
        "data.val_files",
        DATA_FILE,
        "verl wants a validation file; it is not used: see trainer.test_freq",
        group=DATA,
        when=_rl,
    ),
    Key("seq_len", "data.max_length", "tokens per sample; verl's default is 1024", when=_sft, group=DATA),
    Const(
        "data.truncation", "right", "longer samples are cut instead of ending the run", group=DATA, when=_sft
    ),
    Const(
        "data.ignore_input_ids_mismatch",
        True,
        "turns are tokenized one by one, which templates of thinking models do not mirror exactly",
        group=DATA,
        when=_sft,
    ),
    Key("prompt_len", "data.max_prompt_length", "longest prompt, tokens", when=_rl, absent=0, group=DATA),
    Key("response_len", "data.max_response_length", "longest answer, tokens", when=_rl, absent=0, group=DATA),
    Const(
        "data.filter_overlong_prompts",
        True,
        "longer prompts are left out; unfiltered they end the run",
        group=DATA,
        when=_rl,
    ),
    *pair("seed", "data.seed", "trainer.seed", "shuffling", DATA),
)

BATCH_ROWS: tuple[Row, ...] = (
    *derived(
        "data.train_batch_size",
        "",
        _prompts,
        "prompts per step over all GPUs; each is answered rollout.n times",
        BATCH,
    ),
    *derived(
        "", "data.train_batch_size", lambda p, j: p.global_batch_size, "samples per step over all GPUs", BATCH
    ),
    *derived(
        f"{ACTOR}.ppo_mini_batch_size",
        "",
        _prompts,
        "prompts per optimizer step: one step per batch, strictly on-policy",
        BATCH,
    ),
    *pair(
        "micro_batch_size",
        f"{ACTOR}.ppo_micro_batch_size_per_gpu",
        "data.micro_batch_size_per_gpu",
        "sequences per GPU and pass, where batches are not filled by tokens",
        BATCH,
    ),
    *derived(
        f"{ACTOR}.use_dynamic_bsz",
        "data.use_dynamic_bsz",
        lambda p, j: True,
        "passes are filled by tokens, without padding",
        BATCH,
    ),
    *derived(
        f"{ACTOR}.ppo_max_token_len_per_gpu",
        "data.max_token_len_per_gpu",
        _tokens,
        "tokens per GPU and pass: micro batch x longest sequence",
        BATCH,
    ),
    critic("ppo_max_token_len_per_gpu", _tokens, BATCH),
    Key("gradient_accumulation_steps", "gradient_accumulation_steps", "", document=REPO),
    Key("epochs", "trainer.total_epochs", "passes over the data", codec=EPOCHS, group=BATCH),
)


def _optim(field: str, key: str, why: str, when: When = always, codec: Codec = SAME) -> tuple[Row, ...]:
    return pair(field, f"{ACTOR}.optim.{key}", f"optim.{key}", why, OPTIM, when, codec)


OPTIM_ROWS: tuple[Row, ...] = (
    *_optim("learning_rate", "lr", "peak learning rate"),
    *_optim(
        "lr_scheduler",
        "lr_scheduler_type",
        "shape of the learning rate",
        _hf,
        mapped({"cosine": "cosine", "constant": "constant"}),
    ),
    *_optim(
        "lr_scheduler",
        "lr_decay_style",
        "shape of the learning rate",
        _megatron,
        mapped({"cosine": "cosine", "constant": "constant", "linear": "linear"}),
    ),
    *_optim("warmup_ratio", "lr_warmup_steps_ratio", "share of all steps"),
    *_optim("weight_decay", "weight_decay", "decoupled weight decay"),
    *_optim("max_grad_norm", "clip_grad", "gradients are scaled down to this norm", codec=FLOAT),
    *derived(
        f"{ACTOR}.optim.optimizer",
        "optim.optimizer",
        lambda p, j: "adam" if _megatron(p) else "AdamW",
        "AdamW; Megatron's Adam decays weights decoupled too",
        OPTIM,
    ),
    critic("optim.lr", lambda p, j: 10 * p.learning_rate, OPTIM, why="a critic learns faster: ten times"),
    critic("optim.clip_grad", lambda p, j: float(p.max_grad_norm), OPTIM),
)

ROLLOUT_ROWS: tuple[Row, ...] = (
    Choice(
        ("rollout_engine",),
        (
            Case(("none",), {f"{ROLLOUT}.name": ABSENT}),
            Case(("vllm",), {f"{ROLLOUT}.name": "vllm"}, "vLLM servers on the training GPUs"),
        ),
        group=ROLLOUTS,
    ),
    Key("generations", f"{ROLLOUT}.n", "answers per prompt", when=_rl, absent=0, group=ROLLOUTS),
    Key(
        "rollout_tensor_parallel",
        f"{ROLLOUT}.tensor_model_parallel_size",
        "GPUs that share one vLLM engine; verl's default is 2",
        when=_rl,
        group=ROLLOUTS,
    ),
    Key(
        "rollout_memory_fraction",
        f"{ROLLOUT}.gpu_memory_utilization",
        "share of each GPU that vLLM may take",
        when=_rl,
        codec=FLOAT,
        group=ROLLOUTS,
    ),
    Key(
        "rollout_sleep",
        f"{ROLLOUT}.free_cache_engine",
        "vLLM gives its memory back while the policy trains",
        when=_rl,
        group=ROLLOUTS,
    ),
    Const(
        f"{ROLLOUT}.load_format",
        "safetensors",
        "vLLM reads the base weights itself: only adapters are sent to it",
        when=_all(_rl, _adapter),
        group=ROLLOUTS,
    ),
    Const(
        f"{ROLLOUT}.layered_summon",
        True,
        "adapters are gathered layer by layer: a lower peak",
        when=_all(_rl, _adapter, _hf),
        group=ROLLOUTS,
    ),
    *derived(
        "transfer_queue.backend.SimpleStorage.num_data_storage_units",
        "",
        lambda p, j: 2 * p.nodes,
        "each takes a CPU; the default of 8 can hang a small node",
        ROLLOUTS,
    ),
    *derived(
        "ray_kwargs.ray_init.num_cpus",
        "",
        lambda p, j: j.cpus_per_node,
        "CPUs for Ray; under Slurm it would count the whole machine's",
        ROLLOUTS,
        lambda p: p.nodes == 1,
    ),
)

REWARD_ROWS: tuple[Row, ...] = (
    _custom_reward("path", REWARD_FILE, "calls your function in rewards.py"),
    _custom_reward("name", "compute_score", "the function in that file"),
    _reward_model("enable", lambda p: True, "a model scores the answers"),
    Derived(
        "reward.reward_model.model_path",
        lambda p, j: (j.reward_model or ABSENT) if p.online else ABSENT,
        "the model that scores answers",
        group=REWARDS,
    ),
    _reward_model("rollout.name", lambda p: "vllm", "vLLM serves it as a classifier"),
    _reward_model(
        "rollout.tensor_model_parallel_size", lambda p: p.rollout_tensor_parallel, "as the rollouts"
    ),
    _reward_model(
        "rollout.gpu_memory_utilization",
        lambda p: p.rollout_memory_fraction,
        "it wakes when the rollouts sleep",
    ),
    _reward_model("rollout.prompt_length", lambda p: p.seq_len, "it reads prompt and answer"),
    Const(
        "reward.reward_manager.name",
        "dapo",
        "DAPO: answers near the length limit lose reward",
        when=lambda p: p.method == "dapo",
        group=REWARDS,
    ),
    _dapo("max_resp_len", lambda p: p.response_len, "the length limit"),
    _dapo("overlong_buffer_cfg.enable", lambda p: True, "the penalty is on"),
    _dapo("overlong_buffer_cfg.len", lambda p: max(1, p.response_len // 5), "its last fifth is penalised"),
    _dapo("overlong_buffer_cfg.penalty_factor", lambda p: 1.0, "reward lost at the limit"),
    _dapo("overlong_buffer_cfg.log", lambda p: True, "how often shows in the log"),
)

HOST_STEP_KEYS: Mapping[str, Any] = {
    f"{HOST_STEP}.optimizer_cpu_offload": True,
    f"{HOST_STEP}.optimizer_offload_fraction": 1.0,
    f"{HOST_STEP}.overlap_cpu_optimizer_d2h_h2d": True,
    f"{HOST_STEP}.use_precision_aware_optimizer": True,
}
FULL_RECOMPUTE: Mapping[str, Any] = {
    f"{RECOMPUTE}_granularity": "full",
    f"{RECOMPUTE}_method": "uniform",
    f"{RECOMPUTE}_num_layers": 1,
}


def _constant(value: Any) -> Callable[[Plan, Job], Any]:
    return lambda p, j: value


MEMORY_ROWS: tuple[Row, ...] = (
    Choice(
        ("backend", "fsdp", "zero_stage"),
        (
            Case(("hf", True, 3), {f"{ACTOR}.strategy": "fsdp2"}, "PyTorch FSDP2"),
            Case(("megatron", False, 1), {"model_engine": "megatron"}, "Megatron-core"),
        ),
        group=MEMORY,
        when=_rl,
    ),
    Choice(
        ("backend", "fsdp", "zero_stage"),
        (
            Case(("hf", True, 3), {"engine.strategy": "fsdp2"}, "PyTorch FSDP2"),
            Case(("megatron", False, 1), {"engine": "megatron", "optim": "megatron"}, "Megatron-core"),
        ),
        group=MEMORY,
        when=_sft,
    ),
    critic("strategy", _constant("fsdp2"), MEMORY, _hf),
    *choice(
        ("precision", "param_dtype", "master_weights"),
        f"{ACTOR}.fsdp_config",
        "engine",
        (
            (("bf16", "fp32", False), {"model_dtype": "fp32"}, "sharded fp32 weights, computed with in bf16"),
            (("bf16", "bf16", False), {"model_dtype": "bfloat16"}, "weights in bf16; verl's default is fp32"),
            (
                ("bf16-pure", "bf16", False),
                {"model_dtype": "bfloat16", "mixed_precision": {"reduce_dtype": "bf16"}},
                "bf16 weights, gradients too are summed in bf16",
            ),
        ),
        MEMORY,
        _hf,
    ),
    *choice(
        ("precision", "param_dtype", "master_weights"),
        f"{ACTOR}.megatron",
        "engine",
        (
            (
                ("bf16", "bf16", True),
                {"use_distributed_optimizer": True},
                "bf16 weights; fp32 copies and Adam's states are spread over the data-parallel ranks",
            ),
        ),
        MEMORY,
        _megatron,
    ),
    Const(
        f"{REF}.fsdp_config.model_dtype",
        "bfloat16",
        "the reference only reads",
        when=_all(_reference, _hf),
        group=MEMORY,
    ),
    critic(
        "fsdp.model_dtype",
        lambda p, j: "bfloat16" if p.param_dtype == "bf16" else "fp32",
        MEMORY,
        _hf,
    ),
    *choice(
        ("offload",),
        f"{ACTOR}.fsdp_config",
        "engine",
        (
            (("none",), {"offload_policy": False}, "everything stays on the GPU"),
            (("all",), {"offload_policy": True}, "weights, gradients and optimizer in host memory"),
        ),
        MEMORY,
        _hf,
    ),
    critic("fsdp.offload_policy", lambda p, j: p.offload == "all", MEMORY, _hf),
    *choice(
        ("offload",),
        f"{ACTOR}.optim",
        "optim",
        (
            (("none",), {f"{HOST_STEP}.optimizer_cpu_offload": False}, "everything stays on the GPU"),
            (("optimizer",), HOST_STEP_KEYS, "optimizer states and step in host memory"),
        ),
        MEMORY,
        _megatron,
    ),
    *(
        critic(f"optim.{key}", _constant(value), MEMORY, lambda p: _megatron(p) and p.offload == "optimizer")
        for key, value in HOST_STEP_KEYS.items()
    ),
    *pair(
        "gradient_checkpointing",
        f"{MODEL}.enable_gradient_checkpointing",
        "model.enable_gradient_checkpointing",
        "recompute activations in backward, or keep them (faster)",
        MEMORY,
        _hf,
    ),
    critic("model.enable_gradient_checkpointing", lambda p, j: p.gradient_checkpointing, MEMORY, _hf),
    *choice(
        ("recompute",),
        f"{ACTOR}.megatron",
        "engine",
        (
            (("none",), {f"{RECOMPUTE}_granularity": None}, "keep activations: faster"),
            (("selective",), {f"{RECOMPUTE}_granularity": "selective"}, "recompute the attention core"),
            (("full",), FULL_RECOMPUTE, "recompute every layer in backward"),
        ),
        MEMORY,
        _megatron,
    ),
    *(
        critic(f"megatron.{key}", _constant(value), MEMORY, lambda p: _megatron(p) and p.recompute == "full")
        for key, value in FULL_RECOMPUTE.items()
    ),
    *choice(
        ("liger",),
        MODEL,
        "model",
        (
            ((True,), {"use_liger": True}, "Liger's fused kernels"),
            ((False,), {"use_liger": False}, "stock modules"),
        ),
        MEMORY,
        _hf,
    ),
    Choice(
        ("loss",),
        (
            Case(
                ("fused",),
                {f"{MODEL}.use_fused_kernels": True},
                "log-probabilities are computed with the output head",
            ),
            Case(("stock",), {f"{MODEL}.use_fused_kernels": ABSENT}),
        ),
        group=MEMORY,
        when=_rl,
    ),
)


def _split(field: str, key: str, why: str, when: When = always) -> tuple[Row, ...]:
    """A degree of Megatron's grid; the reference follows the actor by itself, the critic does not."""
    here = _all(_megatron, when)
    return (
        *pair(field, f"{ACTOR}.megatron.{key}", f"engine.{key}", why, PARALLEL, here),
        critic(f"megatron.{key}", lambda p, j: getattr(p, field), PARALLEL, here),
    )


PARALLEL_ROWS: tuple[Row, ...] = (
    # Writes nothing: refuses what FSDP2 cannot slice. Megatron's rows below have their say when read back.
    Choice(
        (
            "tensor_parallel",
            "sequence_parallel",
            "pipeline_parallel",
            "expert_parallel",
            "expert_tensor_parallel",
        ),
        (Case((1, False, 1, 1, 1), {}),),
        when=_hf,
    ),
    Key("nodes", "trainer.nnodes", "machines", group=PARALLEL),
    Key("gpus_per_node", "trainer.n_gpus_per_node", "GPUs of each", group=PARALLEL),
    *pair(
        "context_parallel",
        f"{ACTOR}.ulysses_sequence_parallel_size",
        "engine.ulysses_sequence_parallel_size",
        "ranks that split the sequence (Ulysses)",
        PARALLEL,
        _ulysses,
    ),
    critic(
        "ulysses_sequence_parallel_size",
        lambda p, j: p.context_parallel,
        PARALLEL,
        _ulysses,
    ),
    *_split("tensor_parallel", "tensor_model_parallel_size", "ranks that slice every matrix"),
    *_split(
        "sequence_parallel", "sequence_parallel", "they split norms and dropout along the sequence as well"
    ),
    *_split("pipeline_parallel", "pipeline_model_parallel_size", "stages the layers are split into"),
    *_split(
        "pipeline_first_layers",
        f"{PIPELINE}_first_pipeline_stage",
        "layers of the first stage",
        lambda p: p.pipeline_first_layers > 0,
    ),
    *_split(
        "pipeline_last_layers",
        f"{PIPELINE}_last_pipeline_stage",
        "layers of the last stage",
        lambda p: p.pipeline_last_layers > 0,
    ),
    *_split("expert_parallel", "expert_model_parallel_size", "ranks the experts are spread over"),
    *_split(
        "expert_tensor_parallel",
        "expert_tensor_parallel_size",
        "ranks that slice each expert; left out it would be the tensor-parallel degree",
    ),
    *_split("context_parallel", "context_parallel_size", "ranks that split the sequence"),
    *_megatron_setting(
        lambda m: m.moe,
        "moe_router_dtype",
        "fp32",
        "the router decides in fp32: stable choices",
    ),
    *_megatron_setting(
        lambda m: m.mla,
        "apply_rope_fusion",
        False,
        "the fused kernel does not fit latent attention",
    ),
)

SAVE_ROWS: tuple[Row, ...] = (
    Derived("trainer.default_local_dir", lambda p, j: j.output_dir, "checkpoints", group=SAVE),
    Key("save_steps", "trainer.save_freq", "steps between checkpoints; -1 would save none in RL", group=SAVE),
    *derived(
        "trainer.max_actor_ckpt_to_keep",
        "trainer.max_ckpt_to_keep",
        _constant(2),
        "older checkpoints are deleted",
        SAVE,
    ),
    *derived(
        "trainer.max_critic_ckpt_to_keep", "", _constant(2), "older checkpoints are deleted", SAVE, _critic
    ),
    Const("trainer.test_freq", -1, "no validation while training", group=SAVE),
    Const("trainer.val_before_train", False, "nor before", group=SAVE, when=_rl),
    Derived("trainer.logger", _logger, "where numbers go; the default wants a wandb login", group=SAVE),
    Derived("trainer.project_name", lambda p, j: "posttraining", "project in the tracker", group=SAVE),
    Derived("trainer.experiment_name", lambda p, j: j.run_name, "name of the run", group=SAVE),
)

TABLE = Table(
    NAME,
    (
        *METHOD_ROWS,
        *MODEL_ROWS,
        *DATA_ROWS,
        *BATCH_ROWS,
        *OPTIM_ROWS,
        *ROLLOUT_ROWS,
        *REWARD_ROWS,
        *MEMORY_ROWS,
        *PARALLEL_ROWS,
        *SAVE_ROWS,
    ),
)


BARE = re.compile(r"[A-Za-z_./][\w./@-]*")


def hydra_value(value: Any) -> str:
    """A value in hydra's override grammar."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{hydra_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(hydra_value(item) for item in value) + "]"
    text = str(value)
    if BARE.fullmatch(text) and text.lower() not in ("null", "true", "false", "nan", "inf"):
        return text
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("${", "\\${")
    return f"'{escaped}'"


def override(line: Line) -> str:
    """The line as one word of the command line."""
    listed = line.key.rpartition(".")[2] in LISTED
    sign = "++" if ADDED.search(line.key) and not listed else ""
    return f"{sign}{line.key}={hydra_value(line.value)}"


def _lines(plan: Plan, job: Job) -> tuple[Line, ...]:
    """The overrides of a plan that is known to be expressible."""
    return TABLE.render(plan, job, lambda p: asdict(plan))["train"].lines


def data_need(plan: Plan) -> DataNeed:
    return DataNeed(("rl-prompts",) if plan.online else ("messages",))


def _launcher(plan: Plan) -> tuple[str, ...]:
    if plan.online:
        return ("python3", "-m", PPO)
    return ("torchrun", f"--nnodes={plan.nodes}", f"--nproc_per_node={plan.gpus_per_node}", "-m", SFT)


def command(plan: Plan, job: Job) -> Sequence[str]:
    return (*_launcher(plan), *(override(line) for line in _lines(plan, job)))


def nearest(plan: Plan) -> tuple[Plan, str]:
    """The nearest plan that a CPU can train, and what it leaves out (empty: nothing)."""
    left_out: list[str] = []
    near = plan
    if _megatron(plan):
        left_out.append("Megatron (FSDP2 trained instead)")
        targets = ("all-linear",) if plan.lora_targets == ("experts",) else plan.lora_targets
        near = replace(
            near,
            backend="hf",
            fsdp=True,
            zero_stage=3,
            offload="none",
            tensor_parallel=1,
            sequence_parallel=False,
            pipeline_parallel=1,
            expert_parallel=1,
            expert_tensor_parallel=1,
            context_parallel=1,
            master_weights=False,
            lora_dropout=0.0,
            lr_scheduler="constant" if plan.lr_scheduler == "constant" else "cosine",
            lora_targets=targets,
        )
    if _critic(plan):
        left_out.append("the critic (GRPO trained instead)")
        near = replace(near, method="grpo")
    return near.normalised(), " and ".join(left_out)


def _script(plan: Plan, job: Job, folder: str = "") -> str:
    lines = _lines(plan, job)
    groups: dict[str, list[tuple[str, str]]] = {}
    for line in lines:
        groups.setdefault(line.group, []).append((override(line), line.why))
    return render(
        "verl/train.sh.jinja", groups=groups, plan=plan, job=job, module=_launcher(plan)[-1], up=folder
    )


def _column(job: Job, names: Sequence[str]) -> str:
    """What the user's rows call a column."""
    present = job.data_extra.get("columns", ())
    return next((name for name in names if name in present), names[0])


def _prepare_data(plan: Plan, job: Job) -> str:
    return render(
        "verl/prepare_data.py.jinja",
        plan=plan,
        job=job,
        target=DATA_FILE,
        batch=_prompts(plan, job) if plan.online else plan.global_batch_size,
        messages=_column(job, rows.MESSAGES_NAMES),
        prompt=_column(job, rows.PROMPT_NAMES),
        solution=_column(job, rows.SOLUTION_NAMES),
    )


def files(plan: Plan, job: Job, rendered: Rendered) -> Sequence[Emitted]:
    emitted = [
        Emitted("train.sh", "config", _script(plan, job), True),
        Emitted("prepare_data.py", "script", _prepare_data(plan, job)),
    ]
    if plan.online and job.reward:
        function = job.reward.rpartition(":")[2]
        emitted.append(Emitted(REWARD_FILE, "reward", render("verl/reward_verl.py.jinja", function=function)))
    if plan.online and plan.nodes > 1:
        emitted += [
            Emitted("launch/ray.sh", "ray", render("verl/ray.sh.jinja", plan=plan), True),
            Emitted("launch/ray_env.sh", "ray", render("verl/ray_env.sh.jinja", plan=plan)),
        ]
    near, left_out = nearest(plan)
    if left_out:
        emitted.append(Emitted("smoke/nearest.sh", "smoke", _script(near, job, "/.."), True))
    return emitted


def smoke(plan: Plan, job: Job) -> Smoke:
    left_out = [nearest(plan)[1]]
    if plan.online:
        left_out.append("the vLLM rollout (the model itself generated)")
    if job.reward_model:
        left_out.append("the reward model")
    names = ("verl_cpu.py", "any_reward.py") if job.reward_model else ("verl_cpu.py",)
    return Smoke(
        files={name: f"verl/smoke/{name}" for name in names},
        partial=", ".join(filter(None, left_out)),
        rl=plan.online,
        judged_roles=("config",),
    )


def context(plan: Plan, job: Job, rendered: Rendered) -> Mapping[str, Any]:
    environment: dict[str, Any] = {"HYDRA_FULL_ERROR": "1"}
    if _megatron(plan) and not plan.online:
        environment["CUDA_DEVICE_MAX_CONNECTIONS"] = "1"
    result: dict[str, Any] = {
        "environment": environment,
        "near": nearest(plan)[0],
        "partial": nearest(plan)[1],
    }
    if plan.online and plan.nodes > 1:
        result["slurm_template"] = "verl/slurm.sbatch.jinja"
    return result
