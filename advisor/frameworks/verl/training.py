"""Method, model, data, batch and optimization <-> hydra key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from advisor.errors import CannotExpress
from advisor.facts.lora import expert_parameter_names, linear_module_names
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
    Row,
    When,
    always,
    mapped,
)
from advisor.frameworks.verl.places import (
    ACTOR,
    BATCH,
    DATA,
    MODEL,
    MODELS,
    NAME,
    OPTIM,
    TASK,
    apart,
    critic,
    derived,
    every,
    has_adapter,
    is_rl,
    is_sft,
    on_hf,
    on_megatron,
    pair,
)
from advisor.plan import Plan

PPO, SFT = "verl.trainer.main_ppo", "verl.trainer.sft_trainer"
DATA_FILE = "data/train.parquet"
KL_IN_REWARD = ("ppo", "rloo", "reinforce++")
"""Methods that take the KL term off the reward; the others add it to the loss."""


def _kl_loss(plan: Plan) -> bool:
    return plan.online and plan.method not in KL_IN_REWARD


def _kl_reward(plan: Plan) -> bool:
    return plan.method in KL_IN_REWARD


def _whole(value: float) -> int:
    if value != int(value):
        raise CannotExpress(NAME, [("epochs", f"trainer.total_epochs counts whole epochs, not {value}")])
    return int(value)


EPOCHS = Codec(_whole, float, (1.0, 3.0))


def _tokens(plan: Plan, job: Job) -> int:
    """Token budget of a pass: `micro_batch_size` sequences of full length; context-parallel ranks share it."""
    return -(-plan.micro_batch_size * plan.seq_len // plan.context_parallel)


def prompts_per_step(plan: Plan, job: Job) -> int:
    return max(1, plan.global_batch_size // max(1, plan.generations))


def _modules(plan: Plan, job: Job) -> Any:
    return linear_module_names(job.model, plan.lora_targets) if has_adapter(plan) and on_hf(plan) else ABSENT


def _expert_parameters(plan: Plan, job: Job) -> Any:
    if not has_adapter(plan) or on_megatron(plan) or plan.lora_targets != ("experts",):
        return ABSENT
    return expert_parameter_names(job.model)


def _megatron_modules(plan: Plan, job: Job) -> Any:
    """Megatron-core's names: one fused matrix for query, key and value, one for gate and up."""
    if not has_adapter(plan) or on_hf(plan):
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
    return (job.adapter or ABSENT) if has_adapter(plan) else ABSENT


def _merged(plan: Plan, job: Job) -> Any:
    """Adapters inside experts are folded into the weights that vLLM gets: it needs no adapter format for them; so is
    what goes to servers on other GPUs."""
    if not (has_adapter(plan) and plan.online):
        return ABSENT
    inside_experts = on_megatron(plan) and plan.lora_targets == ("experts",)
    return True if apart(plan) or inside_experts else ABSENT


def _filter_groups(value: Any) -> Callable[[Plan, Job], Any]:
    return lambda p, j: value if p.method == "dapo" and j.reward else ABSENT


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
    Key("lora_targets", "lora_targets", "", document=REPO, codec=LIST, when=has_adapter),
    *pair(
        "lora_rank",
        f"{MODEL}.lora_rank",
        "model.lora_rank",
        "rank of the adapters",
        MODELS,
        every(has_adapter, on_hf),
    ),
    *pair(
        "lora_alpha",
        f"{MODEL}.lora_alpha",
        "model.lora_alpha",
        "adapter output is scaled by alpha / rank",
        MODELS,
        every(has_adapter, on_hf),
    ),
    *pair(
        "lora_rank",
        f"{MODEL}.lora.rank",
        "model.lora.rank",
        "rank of the adapters (Megatron reads model.lora.*)",
        MODELS,
        every(has_adapter, on_megatron),
    ),
    *pair(
        "lora_alpha",
        f"{MODEL}.lora.alpha",
        "model.lora.alpha",
        "adapter output is scaled by alpha / rank",
        MODELS,
        every(has_adapter, on_megatron),
    ),
    *pair(
        "lora_dropout",
        f"{MODEL}.lora.dropout",
        "model.lora.dropout",
        "dropout on the adapters' input",
        MODELS,
        every(has_adapter, on_megatron),
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
        on_hf,
    ),
    *derived(
        f"{MODEL}.lora.adapter_path",
        "model.lora.adapter_path",
        _start_adapter,
        "adapter to go on from",
        MODELS,
        on_megatron,
    ),
    critic("model.lora_rank", lambda p, j: p.lora_rank, MODELS, every(has_adapter, on_hf)),
    critic("model.lora_alpha", lambda p, j: p.lora_alpha, MODELS, every(has_adapter, on_hf)),
    critic("model.target_modules", _modules, MODELS),
    critic("model.lora.rank", lambda p, j: p.lora_rank, MODELS, every(has_adapter, on_megatron)),
    critic("model.lora.alpha", lambda p, j: p.lora_alpha, MODELS, every(has_adapter, on_megatron)),
    critic("model.lora.target_modules", _megatron_modules, MODELS),
)

DATA_ROWS: tuple[Row, ...] = (
    Const("data.train_files", DATA_FILE, "your rows, as prepare_data.py writes them", group=DATA),
    Const(
        "data.val_files",
        DATA_FILE,
        "verl wants a validation file; it is not used: see trainer.test_freq",
        group=DATA,
        when=is_rl,
    ),
    Key("seq_len", "data.max_length", "tokens per sample; verl's default is 1024", when=is_sft, group=DATA),
    Const(
        "data.truncation",
        "right",
        "longer samples are cut instead of ending the run",
        group=DATA,
        when=is_sft,
    ),
    Const(
        "data.ignore_input_ids_mismatch",
        True,
        "turns are tokenized one by one, which templates of thinking models do not mirror exactly",
        group=DATA,
        when=is_sft,
    ),
    Key("prompt_len", "data.max_prompt_length", "longest prompt, tokens", when=is_rl, absent=0, group=DATA),
    Key(
        "response_len", "data.max_response_length", "longest answer, tokens", when=is_rl, absent=0, group=DATA
    ),
    Const(
        "data.filter_overlong_prompts",
        True,
        "longer prompts are left out; unfiltered they end the run",
        group=DATA,
        when=is_rl,
    ),
    *pair("seed", "data.seed", "trainer.seed", "shuffling", DATA),
)

BATCH_ROWS: tuple[Row, ...] = (
    *derived(
        "data.train_batch_size",
        "",
        prompts_per_step,
        "prompts per step over all GPUs; each is answered rollout.n times",
        BATCH,
    ),
    *derived(
        "", "data.train_batch_size", lambda p, j: p.global_batch_size, "samples per step over all GPUs", BATCH
    ),
    *derived(
        f"{ACTOR}.ppo_mini_batch_size",
        "",
        prompts_per_step,
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
    # The trainer hands this one to the critic's passes, training's too, and its default is 32768
    # (verl==0.9.1:verl/trainer/ppo/v1/trainer_base.py:267, verl/workers/engine_workers.py:355).
    critic("ppo_infer_max_token_len_per_gpu", _tokens, BATCH, why="what its passes go by", since="0.6.1"),
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
        on_hf,
        mapped({"cosine": "cosine", "constant": "constant"}),
    ),
    *_optim(
        "lr_scheduler",
        "lr_decay_style",
        "shape of the learning rate",
        on_megatron,
        mapped({"cosine": "cosine", "constant": "constant", "linear": "linear"}),
    ),
    *_optim("warmup_ratio", "lr_warmup_steps_ratio", "share of all steps"),
    *_optim("weight_decay", "weight_decay", "decoupled weight decay"),
    *_optim("max_grad_norm", "clip_grad", "gradients are scaled down to this norm", codec=FLOAT),
    *derived(
        f"{ACTOR}.optim.optimizer",
        "optim.optimizer",
        lambda p, j: "adam" if on_megatron(p) else "AdamW",
        "AdamW; Megatron's Adam decays weights decoupled too",
        OPTIM,
    ),
    critic("optim.lr", lambda p, j: 10 * p.learning_rate, OPTIM, why="a critic learns faster: ten times"),
    critic("optim.clip_grad", lambda p, j: float(p.max_grad_norm), OPTIM),
)
