"""Let verl run on a CPU, for smoke tests only: slow, tiny models, no performance meaning.

verl knows NVIDIA, AMD and Ascend devices and generates with inference servers that need one. This
module adds a CPU platform and a rollout that generates with transformers, through verl's own
plug-in points; no file of verl is edited. Use:

    export VERL_USE_EXTERNAL_MODULES=verl_cpu VERL_PLATFORM=cpu PYTHONPATH=<this folder>

and the overrides listed in overrides.yaml beside this file (`rollout.name=hf_cpu`).
"""

from __future__ import annotations

import asyncio
import os
from contextlib import contextmanager, nullcontext
from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.fsdp as torch_fsdp
from verl.plugin.platform import platform_manager
from verl.plugin.platform.platform_base import PlatformBase


class _CpuModule(ModuleType):
    """What verl expects below `torch.<device>`: torch.cpu, and nothing to do for what it lacks."""

    current_device = staticmethod(lambda: 0)
    device_count = staticmethod(lambda: 1)
    is_available = staticmethod(lambda: True)
    set_device = synchronize = empty_cache = ipc_collect = staticmethod(lambda *_: None)
    set_per_process_memory_fraction = reset_peak_memory_stats = staticmethod(lambda *_: None)
    memory_allocated = memory_reserved = max_memory_allocated = max_memory_reserved = staticmethod(
        lambda *_: 0
    )
    mem_get_info = staticmethod(lambda *_: (1 << 30, 1 << 30))
    get_device_name = staticmethod(lambda *_: "cpu")
    get_rng_state = staticmethod(torch.get_rng_state)
    set_rng_state = staticmethod(torch.set_rng_state)
    manual_seed = manual_seed_all = staticmethod(torch.manual_seed)
    Stream, Event, current_stream = torch.cpu.Stream, torch.Event, staticmethod(torch.cpu.current_stream)
    stream = staticmethod(lambda *_: nullcontext())


@platform_manager.PlatformRegistry.register(platform="cpu")
class PlatformCPU(PlatformBase):
    """A CPU standing in for one accelerator."""

    device_name = "cpu"
    vendor_name = "generic"
    device_module = _CpuModule("verl_cpu_device")

    def is_available(self) -> bool:
        return True

    def current_device(self) -> str:
        # verl moves tensors to this; a bare index would mean an accelerator to torch.
        return "cpu"

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None:
        pass

    def synchronize(self, device_index: int | None = None) -> None:
        pass

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    manual_seed_all = manual_seed

    def set_allocator_settings(self, settings: str) -> None:
        pass

    def empty_cache(self) -> None:
        pass

    def get_device_capability(self, device_index: int = 0) -> tuple[None, None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str):
        yield

    def profiler_start(self) -> None:
        pass

    def profiler_stop(self) -> None:
        pass

    def ray_resource_name(self) -> str:
        # Workers are placed by "GPU" resources; the run declares make-believe ones to Ray.
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return []

    def is_ipc_supported(self) -> bool:
        return False

    def cudart(self) -> None:
        return None


def _one_gloo_backend() -> None:
    """verl asks for "cpu:gloo,<device>:<backend>", which here names the CPU twice: torch refuses that."""
    original = dist.init_process_group

    def init_process_group(backend: str | None = None, *args: Any, **kwargs: Any) -> None:
        return original("gloo" if backend == "cpu:gloo,cpu:gloo" else backend, *args, **kwargs)

    dist.init_process_group = init_process_group


def _no_pinned_memory() -> None:
    """The reference model is kept in pinned host memory, which needs an accelerator's runtime."""
    original = torch_fsdp.CPUOffloadPolicy.__init__

    def init(self: Any, pin_memory: bool = False) -> None:
        original(self, pin_memory=False)

    torch_fsdp.CPUOffloadPolicy.__init__ = init


_one_gloo_backend()
_no_pinned_memory()


def _register_engines() -> None:
    """The FSDP engines run on any torch device but are registered for cuda and npu only."""
    from verl.workers.engine.base import EngineRegistry
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead, FSDPEngineWithValueHead

    engines = {"language_model": FSDPEngineWithLMHead, "value_model": FSDPEngineWithValueHead}
    for model_type, engine in engines.items():
        EngineRegistry.register(model_type=model_type, backend=["fsdp", "fsdp2"], device="cpu")(engine)


class CpuServer:
    """Rollout server: one transformers model, one request at a time, in a Ray actor of its own."""

    def __init__(self, config: Any, model_config: Any):
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(1)
        self.config = config
        self.model = AutoModelForCausalLM.from_pretrained(model_config.path, dtype=torch.float32).eval()
        self.lock = asyncio.Lock()
        self.global_steps = 0
        self.updates = 0

    async def load_weights(
        self, weights: list, peft_config: dict | None, base_sync_done: bool, step: int | None
    ):
        """Full weights replace the model's; adapter weights go into an adapter made on first use."""
        async with self.lock:
            if step is not None:
                self.global_steps = step
            if peft_config is not None and not base_sync_done:
                return  # the base is already here, read from disk
            self.updates += 1
            if peft_config is None:
                if self.model.load_state_dict(dict(weights), strict=False).unexpected_keys:
                    self._reload(dict(weights))  # a tied head may be missing, but nothing may be left over
                return
            from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict

            if not isinstance(self.model, PeftModel):
                known = {
                    key: value for key, value in peft_config.items() if key in LoraConfig.__dataclass_fields__
                }
                self.model = get_peft_model(self.model, LoraConfig(**known)).eval()
            result = set_peft_model_state_dict(self.model, dict(weights))
            if result.unexpected_keys:
                raise RuntimeError(f"adapter weights that fit nothing: {result.unexpected_keys[:3]}")

    def _reload(self, weights: dict[str, torch.Tensor]) -> None:
        """Weights under their names on disk, where each expert stands alone: transformers knows how to fuse them."""
        model, report = type(self.model).from_pretrained(
            None,
            config=self.model.config,
            state_dict=weights,
            dtype=torch.float32,
            output_loading_info=True,
        )
        if strangers := list(report["unexpected_keys"]):
            raise RuntimeError(f"weights that fit nothing: {strangers[:3]}")
        self.model = model.eval()

    def _generate(self, prompt_ids: list[int], params: dict[str, Any]) -> tuple[list[int], list[float]]:
        room = self.config.prompt_length + self.config.response_length - len(prompt_ids)
        limit = params.get("max_tokens") or params.get("max_new_tokens") or self.config.response_length
        temperature = params.get("temperature", 1.0)
        sampling = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
        ids = torch.tensor([prompt_ids])
        with torch.no_grad():
            out = self.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=max(1, min(limit, room)),
                top_k=0,
                output_logits=True,
                return_dict_in_generate=True,
                **sampling,
            )
        tokens = out.sequences[0, len(prompt_ids) :].tolist()
        scale = temperature or 1.0
        logps = [
            torch.log_softmax(row[0].float() / scale, -1)[token].item()
            for row, token in zip(out.logits, tokens, strict=True)
        ]
        return tokens, logps

    async def generate(
        self, prompt_ids: Any, sampling_params: dict[str, Any], request_id: str, **_: Any
    ) -> Any:
        from verl.workers.rollout.replica import TokenOutput

        async with self.lock:
            tokens, logps = await asyncio.to_thread(
                self._generate, [int(i) for i in prompt_ids], sampling_params
            )
        extra = {"global_steps": self.global_steps}
        return TokenOutput(token_ids=tokens, log_probs=logps, stop_reason="completed", extra_fields=extra)

    async def nothing(self, *_: Any, **__: Any) -> None:
        """There is no device memory to free or restore, and no cache."""

    sleep = wake_up = clear_kv_cache = release_kv_cache = resume_kv_cache = nothing
    abort_all_requests = resume_generation = start_profile = stop_profile = nothing


def _load_replica() -> type:
    """Rollout replica: one CpuServer per replica. Made late, because its base imports Ray workers."""
    import ray
    from verl.workers.rollout.replica import RolloutReplica

    class CpuReplica(RolloutReplica):
        async def launch_servers(self) -> None:
            name = f"hf_cpu_server_{self.replica_rank}"
            env = {
                key: os.environ[key] for key in ("VERL_USE_EXTERNAL_MODULES", "VERL_PLATFORM", "PYTHONPATH")
            }
            actor = ray.remote(CpuServer).options(
                name=name, max_concurrency=64, runtime_env={"env_vars": env}
            )
            self.servers = [actor.remote(self.config, self.model_config)]
            self._server_handle = self.servers[0]
            self._server_address = name

    return CpuReplica


def _make_adapter() -> type:
    """Rollout seen from the training worker: hands new weights to the server. Made late, like the replica."""
    import ray
    from verl.workers.rollout.base import BaseRollout

    class CpuRollout(BaseRollout):
        async def resume(self, tags: list[str]) -> None:
            pass

        async def release(self) -> None:
            pass

        async def update_weights(
            self, weights: Any, wire_format: str = "named_tensors", **kwargs: Any
        ) -> None:
            full = [(name, _whole(tensor)) for name, tensor in weights]  # every rank takes part in gathering
            per_replica = self.config.tensor_model_parallel_size * self.config.data_parallel_size
            rank = int(os.environ["RANK"])
            if rank % per_replica:
                return
            server = ray.get_actor(f"hf_cpu_server_{rank // per_replica}")
            peft_config = kwargs.get("peft_config")
            await server.load_weights.remote(
                full, peft_config, kwargs.get("base_sync_done", True), kwargs.get("global_steps")
            )

    return CpuRollout


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return tensor.detach().float().cpu().clone()


def __getattr__(name: str) -> Any:
    """verl's rollout table holds dotted names that are looked up when a worker starts."""
    if name == "CpuRollout":
        return _make_adapter()
    raise AttributeError(name)


def _install() -> None:
    import verl.workers.rollout.base as rollout_base
    from verl.workers.rollout.replica import RolloutReplicaRegistry

    _register_engines()
    # There is no function to add to this table; the replica registry below has one.
    rollout_base._ROLLOUT_REGISTRY[("hf_cpu", "async")] = f"{__name__}.CpuRollout"
    RolloutReplicaRegistry.register("hf_cpu", _load_replica)


_install()
