#!/usr/bin/env bash
# The same configuration and your own first rows through the real framework, for 3 steps on a tiny random
# model of the same architecture: a mistake costs seconds here and a night there. Offline, on a CPU.
#   ./smoke.sh                      exit 0: trained; 6: the nearest path trained (PARTIAL); anything else: failed
#   SMOKE_PROCESSES=2 ./smoke.sh    in two processes over gloo, sharded as the plan is
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 TOKENIZERS_PARALLELISM=false WANDB_MODE=disabled
export CUDA_VISIBLE_DEVICES="" OMP_NUM_THREADS="${OMP_NUM_THREADS:-2}" PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
processes="${SMOKE_PROCESSES:-1}"
work=smoke/work
rm -rf "$work"
mkdir -p "$work"
export HF_HOME="$PWD/$work/hf" XDG_CACHE_HOME="$PWD/$work/cache" TRITON_CACHE_DIR="$PWD/$work/triton"
started=$SECONDS

echo "smoke: the configuration, judged by the framework's own parser and stricter"
python smoke/judge.py --world-size 128 --model-dir smoke/model_config train.sh

echo "smoke: a tiny random model of the same architecture"
python smoke/tiny_model.py --config smoke/model_config/config.json --rows smoke/rows.jsonl --out "$work/model"
# verl knows no CPU: smoke/verl_cpu.py adds one through verl's own plug-in points.
unset CUDA_VISIBLE_DEVICES # empty, it would hide the make-believe GPU
export VERL_USE_EXTERNAL_MODULES=verl_cpu VERL_PLATFORM=cpu PYTHONPATH="$PWD/smoke:$PYTHONPATH"
# Ray's sockets need a short path that still lies in this folder.
export RAY_AUTH_MODE=disabled RAY_TMPDIR="/proc/$$/cwd/$work/ray" RAY_DEDUP_LOGS=0 RAY_USAGE_STATS_ENABLED=0
mkdir -p "$work/ray"
python prepare_data.py

smoke=(
  hydra.run.dir="$work/hydra"
  trainer.default_local_dir="$work/output"
  trainer.device=cpu
  'trainer.logger=[console]'
  trainer.total_training_steps=3
  trainer.total_epochs=3
  trainer.save_freq=3
  trainer.resume_mode=disable
  actor_rollout_ref.model.path="$work/model"
  ++actor_rollout_ref.model.override_config.attn_implementation=sdpa
  actor_rollout_ref.actor.fsdp_config.model_dtype=fp32
  ++actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype=fp32
  actor_rollout_ref.actor.use_torch_compile=False
  actor_rollout_ref.actor.fsdp_config.use_torch_compile=False
  actor_rollout_ref.ref.use_torch_compile=False
  actor_rollout_ref.ref.fsdp_config.use_torch_compile=False
  actor_rollout_ref.rollout.name=hf_cpu
  actor_rollout_ref.rollout.tensor_model_parallel_size=1
  actor_rollout_ref.rollout.data_parallel_size=1
  actor_rollout_ref.rollout.expert_parallel_size=1
  actor_rollout_ref.rollout.agent.num_workers=1
  actor_rollout_ref.rollout.n=4
  data.train_batch_size=2
  actor_rollout_ref.actor.ppo_mini_batch_size=2
  data.max_prompt_length=1024
  data.max_response_length=16
  actor_rollout_ref.actor.ppo_max_token_len_per_gpu=2080
  data.dataloader_num_workers=0
  reward.custom_reward_function.path=smoke/longer.py
  reward.num_workers=1
  trainer.nnodes=1
  trainer.n_gpus_per_node="$processes"
  ++ray_kwargs.ray_init.num_cpus=32
  ++ray_kwargs.ray_init.num_gpus="$processes"
  ++ray_kwargs.ray_init.include_dashboard=False
  transfer_queue.backend.SimpleStorage.num_data_storage_units=1
)
echo "smoke: smoke/nearest.sh, with these overrides; processes: $processes"
printf 'override: %s\n' "${smoke[@]}"
NNODES=1 NODE_RANK=0 NPROC_PER_NODE="$processes" bash smoke/nearest.sh "${smoke[@]}" 2>&1 | tee "$work/log.txt"

python smoke/checkpoint.py "$work/output" --base "$work/model"  --log "$work/log.txt"
python smoke/loss.py "$work/log.txt" --steps 3 --seconds "$((SECONDS - started))" --rl --partial 'Megatron (FSDP2 trained instead), the vLLM rollout (the model itself generated)'
