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
python smoke/judge.py --world-size 1 --model-dir smoke/model_config train.yaml data/dataset_info.json

echo "smoke: a tiny random model of the same architecture"
python smoke/tiny_model.py --config smoke/model_config/config.json --rows smoke/rows.jsonl --out "$work/model"

start=(llamafactory-cli train) spread=(use_cpu=true --drop deepspeed)
if ((processes > 1)); then
  export FORCE_TORCHRUN=1 NPROC_PER_NODE="$processes" DS_ACCELERATOR=cpu
  spread=(use_cpu=true ddp_backend=gloo)
fi
echo "smoke: llamafactory-cli train train.yaml, with these overrides; processes: $processes"
python smoke/override.py train.yaml "$work/train.yaml" \
  model_name_or_path="$work/model" flash_attn=sdpa max_steps=3 save_steps=3 report_to=none \
  output_dir="$work/output" per_device_train_batch_size=2 gradient_accumulation_steps=1 \
  --drop ddp_timeout --drop preprocessing_num_workers --drop adapter_name_or_path "${spread[@]}" \
  --drop bf16 --drop pure_bf16 --drop fp16 --drop enable_liger_kernel \
  --drop quantization_bit --drop quantization_method

"${start[@]}" "$work/train.yaml" 2>&1 | tee "$work/log.txt"

python smoke/checkpoint.py "$work/output" --base "$work/model" --adapter q_proj k_proj v_proj o_proj gate_proj up_proj down_proj --rank 16
python smoke/loss.py "$work/output" --steps 3 --seconds "$((SECONDS - started))"
