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
python smoke/judge.py --world-size 8 --model-dir smoke/model_config train.yaml deepspeed.json

echo "smoke: a tiny random model of the same architecture"
python smoke/tiny_model.py --config smoke/model_config/config.json --rows smoke/rows.jsonl --out "$work/model"

export AXOLOTL_DO_NOT_TRACK=1
start=(--launcher python) spread=(
  --drop deepspeed --drop fsdp_version --drop fsdp_config --drop dp_shard_size
  --drop tensor_parallel_size --drop context_parallel_size --drop expert_parallel_size
)
if ((processes > 1)); then
  # Without a limit for the CPU it would place the model on the GPU of the process's number.
  start=(--launcher torchrun -- --standalone --nproc_per_node "$processes") spread=(max_memory.cpu=8GiB)
  export ACCELERATE_USE_CPU=true DS_ACCELERATOR=cpu
fi
echo "smoke: axolotl train train.yaml, with these overrides; processes: $processes"
python smoke/override.py train.yaml "$work/train.yaml" \
  base_model="$work/model" output_dir="$work/output" dataset_prepared_path="$work/prepared" \
  max_steps=3 save_steps=3 logging_steps=1 micro_batch_size=1 gradient_accumulation_steps=2 \
  bf16=false fp16=false tf32=false attn_implementation=sdpa \
  dataset_num_proc=1 dataloader_num_workers=0 dataloader_pin_memory=false \
  optimizer=adamw_torch \
  sequence_len=2048 \
  --drop fp8 --drop plugins --drop liger_rope --drop liger_rms_norm --drop liger_glu_activation \
  --drop liger_fused_linear_cross_entropy --drop lora_model_dir "${spread[@]}" \
  --drop use_wandb \
  --drop use_mlflow \
  --drop use_tensorboard \
  --drop use_trackio \
  --drop use_swanlab

axolotl train "$work/train.yaml" "${start[@]}" 2>&1 | tee "$work/log.txt"

left_out=''
if ((processes > 1)); then left_out="${left_out:+$left_out, }"'ZeRO-2 (accelerate leaves DeepSpeed out on a CPU: the processes trained data parallel)'; fi
python smoke/checkpoint.py "$work/output" --base "$work/model" 
python smoke/loss.py "$work/output" --steps 3 --seconds "$((SECONDS - started))" ${left_out:+--partial "$left_out"}
