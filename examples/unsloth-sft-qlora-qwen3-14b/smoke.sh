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
python smoke/judge.py --world-size 1 --model-dir smoke/model_config train.py unsloth.yaml

echo "smoke: a tiny random model of the same architecture"
python smoke/tiny_model.py --config smoke/model_config/config.json --rows smoke/rows.jsonl --out "$work/model"

# Unsloth writes the code it generates into the working folder unless told where.
export UNSLOTH_COMPILE_LOCATION="$PWD/$work/compiled" UNSLOTH_FORCE_CPU=1
start=(python) spread=()
if ((processes > 1)); then
  start=(torchrun --standalone --nproc-per-node "$processes")
  spread=(--set train.ddp_backend=gloo)
fi
echo "smoke: python train.py, with these overrides; processes: $processes"
"${start[@]}" train.py "${spread[@]}" \
  --set load.model_name="$work/model" --set load.dtype=float32 \
  --set train.bf16=False --set train.fp16=False --set train.use_cpu=True \
  --set train.max_steps=3 --set train.save_steps=3 --set train.report_to=none --set train.output_dir="$work/output" \
  --set train.gradient_accumulation_steps=1 \
  --set train.per_device_train_batch_size=2 2>&1 | tee "$work/log.txt"

python smoke/checkpoint.py "$work/output" --base "$work/model" --adapter q_proj k_proj v_proj o_proj gate_proj up_proj down_proj --rank 16
python smoke/loss.py "$work/output" --steps 3 --seconds "$((SECONDS - started))"
