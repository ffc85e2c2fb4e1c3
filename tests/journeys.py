"""The journeys: what people did with models of 235 and 671 billion parameters, as they published it, and what is
asked of the planner for the same. Figures are as published; `source` says where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

QWEN = "Qwen/Qwen3-235B-A22B-Thinking-2507"
R1 = "deepseek-ai/DeepSeek-R1-0528"
H20_HOST_GIB = 1600.0
"""Host memory a node that verl's guide for large models names as its minimum for Qwen3-235B: 1.6 TB."""

MS_SWIFT_LORA = "modelscope/ms-swift: examples/megatron/lora/qwen3_235b.sh"
VERL_GUIDE = "verl-project/verl v0.9.0: docs/perf/dpsk.md"
PRACTICE_235B = "ISEEKYAN/verl_megatron_practice: dapo_moe235b.csv"
KT_POST = "blog.llamafactory.net/en/posts/ktransformers"
KT_NOTES = (
    "kvcache-ai/ktransformers@95009ea685: doc/en/SFT/KTransformers-Fine-Tuning_Developer-Technical-Notes.md"
)
KT_COOKBOOK = "kvcache-ai/ktransformers@89dd094: doc/en/SFT/KTransformers-Fine-Tuning_Cookbook.md"


@dataclass(frozen=True)
class Published:
    """What was run."""

    plan: str
    """As its authors write it."""
    source: str
    degrees: Mapping[str, int] = field(default_factory=dict)
    """Plan field -> value of the published plan: held against the legality table."""
    offload: bool = False
    """Whether optimizer states or the training state went to host memory."""
    gpu_gib: float | None = None
    host_gb: float | None = None
    """Per node."""
    tokens_per_second: float | None = None
    """Over all GPUs."""


@dataclass(frozen=True)
class Journey:
    name: str
    request: Mapping[str, Any]
    published: Published
    differs: str
    """Why our plan is another one."""
    too_few: int = 0
    """Nodes of the same kind on which it must not be called feasible; 0: none is claimed."""


def _qwen(**answers: Any) -> dict[str, Any]:
    return {"model": QWEN, "gpus_per_node": 8, **answers}


def _r1(**answers: Any) -> dict[str, Any]:
    return {"model": R1, "gpus_per_node": 8, **answers}


def _grpo(nodes: int, gpu: str, **answers: Any) -> dict[str, Any]:
    """GRPO with all weights in verl, answers of 2048 tokens as the published runs had."""
    return {
        "method": "grpo", "tuning": "full", "framework": "verl", "gpu": gpu, "nodes": nodes, "prompt_len": 1024,
        "response_len": 2048, "cpu_memory_gib": H20_HOST_GIB, **answers,
    }  # fmt: skip


SPLIT_235B = {"pipeline_parallel": 8, "pipeline_first_layers": 11, "pipeline_last_layers": 11}
CHUNKS_235B = {
    "pipeline_parallel": 8, "pipeline_first_layers": 12, "pipeline_last_layers": 10, "virtual_pipeline_parallel": 2,
    "gradient_accumulation_steps": 16,
}  # fmt: skip
"""Two virtual stages a rank, 64 answers over four replicas; the source leaves the first and last layers open."""
SPLIT_R1 = {"pipeline_parallel": 12, "pipeline_last_layers": 6}

JOURNEYS = (
    Journey(
        "Qwen3-235B SFT, LoRA, 1 x 8 H100",
        _qwen(method="sft", tuning="lora", lora_rank=8, gpu="h100", seq_len=2048),
        Published(
            "Megatron TP4 EP8 ETP1, full recomputation, micro batch 8: 8 x 80 GiB",
            MS_SWIFT_LORA, {"tensor_parallel": 4, "expert_parallel": 8}, gpu_gib=80.0,
        ),
        "The same engine, experts and micro batch; TP is what fits with a margin.",
    ),
    Journey(
        "Qwen3-235B SFT, full, 8 x 8 H100",
        _qwen(method="sft", tuning="full", gpu="h100", nodes=8, seq_len=8192),
        Published("all weights: 64 x 80 GiB", MS_SWIFT_LORA, gpu_gib=80.0),
        "The published line names the GPUs and no degrees.",
        too_few=2,
    ),
    Journey(
        "Qwen3-235B GRPO, full, 4 x 8 H20",
        _qwen(**_grpo(4, "h20")),
        Published(
            "Megatron TP4 PP8 EP4, optimizer on the host (fraction 1): the minimum",
            VERL_GUIDE, {"tensor_parallel": 4, "expert_parallel": 4, **SPLIT_235B}, offload=True, host_gb=1600,
        ),
        "Fewer stages idle less; more expert ranks and the host hold what they no longer do.",
        too_few=1,
    ),
    Journey(
        "Qwen3-235B GRPO, full, 8 x 8 H100",
        _qwen(**_grpo(8, "h100")),
        Published(
            "Megatron TP4 PP8 EP4, optimizer on the host (fraction 0.5), 64 H20",
            VERL_GUIDE, {"tensor_parallel": 4, "expert_parallel": 4, **SPLIT_235B}, offload=True,
        ),
        "80 GB cards instead of 96 GB; an optimizer is offloaded whole here, or not at all.",
    ),
    Journey(
        "Qwen3-235B GRPO, full, 16 x 8 H100",
        _qwen(**_grpo(16, "h100")),
        Published(
            "Megatron TP4 PP8 EP8, virtual stages 2, no offload of the optimizer's step, 128 H100",
            PRACTICE_235B, {"tensor_parallel": 4, "expert_parallel": 8, **CHUNKS_235B},
        ),
        "Stages x expert ranks are 64 in both, two chunks a stage; ours slices no matrix, and the host buys room for the "
        "engine's cache.",
    ),
    Journey(
        "DeepSeek-R1-0528 GRPO, full, 12 x 8 H20",
        _r1(**_grpo(12, "h20")),
        Published(
            "Megatron TP8 PP12 EP8, last stage 6 layers, optimizer on the host (fraction 1), 96 H20: the minimum; "
            "66 GB on a GPU, 1500 GB on a host",
            VERL_GUIDE, {"tensor_parallel": 8, "expert_parallel": 8, **SPLIT_R1}, offload=True, gpu_gib=66.0,
            host_gb=1500,
        ),
        "The same stages and expert ranks; host memory here counts what is moved, not Ray, caches and pinned copies.",
        too_few=4,
    ),
    Journey(
        "DeepSeek-R1-0528 GRPO, full, 16 x 8 H20",
        _r1(**_grpo(16, "h20")),
        Published(
            "Megatron TP8 PP16 EP8, last stage 1 layer, optimizer on the host (fraction 0.5), 128 H20",
            VERL_GUIDE,
            {"tensor_parallel": 8, "expert_parallel": 8, "pipeline_parallel": 16, "pipeline_last_layers": 1},
            offload=True,
        ),
        "The same stages and expert ranks, 3 layers in the first and 2 in the last; TP is what fits with a margin.",
    ),
    Journey(
        "DeepSeek-R1-0528 SFT, LoRA, 4 x 8 H100",
        _r1(method="sft", tuning="lora", gpu="h100", nodes=4),
        Published("LoRA of DeepSeek-V3 in 16 bit: 1400 GB over all GPUs, by its authors' arithmetic", KT_POST),
        "32 x 80 GB hold 1342 GB of weights with room to compute.",
        too_few=1,
    ),
    Journey(
        "DeepSeek-R1-0528 SFT, LoRA, 1 x 4 RTX 4090",
        _r1(
            method="sft", tuning="lora", lora_rank=8, gpu="rtx-4090", gpus_per_node=4, seq_len=512, cpu_memory_gib=1536,
            global_batch_size=16,
        ),
        Published(
            "KTransformers in LLaMA-Factory, DeepSeek-V3 on 2 to 4 RTX 4090 beside a Xeon Platinum 8488C, experts in "
            "bf16 on the host, 512 tokens, 16 passes a step: 70 GB over all GPUs, 1.2 to 1.3 TB on the host",
            KT_NOTES, offload=True, host_gb=1300, tokens_per_second=40.35,
        ),
        "The published run split the layers over its GPUs and sent one sequence at a time to the processor; the release "
        "that goes with LLaMA-Factory 0.9.5 shards by FSDP2 and sends one of each GPU, for which the experts' weights "
        "are read once.",
    ),
    Journey(
        "Qwen3-235B SFT, LoRA, 1 x 2 RTX 5090",
        _qwen(
            method="sft", tuning="lora", lora_rank=8, gpu="rtx-5090", gpus_per_node=2, seq_len=2048, cpu_memory_gib=1024,
            global_batch_size=2, framework="llamafactory", offload="experts",
        ),
        Published(
            "KTransformers in LLaMA-Factory, bf16, 2 GPUs (card and processor not named), 2048 tokens, one sequence "
            "a GPU",
            KT_COOKBOOK, offload=True, gpu_gib=29.1, host_gb=586, tokens_per_second=147.91,
        ),
        "Theirs is what the processes held at most (27.14 GiB, 545.36 GiB), allocator and page cache included. The "
        "cards are an assumption: the smallest that hold the published peak.",
    ),
    Journey(
        "DeepSeek-R1-0528 GRPO, LoRA, 8 x 8 H100",
        _r1(**_grpo(8, "h100", tuning="lora")),
        Published(
            "GRPO with LoRA of a model of a trillion parameters on 64 H800", "verl-project/verl v0.9.0: README.md"
        ),
        "The published line names the GPUs and no degrees.",
        too_few=1,
    ),
)  # fmt: skip
