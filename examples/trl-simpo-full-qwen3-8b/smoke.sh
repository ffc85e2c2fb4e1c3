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
python smoke/judge.py --world-size 8 --model-dir smoke/model_config train.yaml accelerate.yaml

echo "smoke: a tiny random model of the same architecture"
python smoke/tiny_model.py --config smoke/model_config/config.json --rows smoke/rows.jsonl --out "$work/model"

echo "smoke: accelerate launch --config_file accelerate.yaml train.py --config train.yaml, with these overrides"
accelerate=(num_processes=1 distributed_type='"NO"' --drop deepspeed_config --drop fsdp_config)
if ((processes > 1)); then
  accelerate=(num_processes="$processes")
  export DS_ACCELERATOR=cpu
fi
python smoke/override.py accelerate.yaml "$work/accelerate.yaml" \
  num_machines=1 mixed_precision='"no"' use_cpu=true "${accelerate[@]}"
python smoke/override.py train.yaml "$work/train.yaml" \
  model_name_or_path="$work/model" dtype=float32 bf16=false use_cpu=true attn_implementation=sdpa \
  max_steps=3 save_steps=3 report_to=none output_dir="$work/output"
start=(accelerate launch --config_file "$work/accelerate.yaml" train.py)
"${start[@]}" --config "$work/train.yaml" 2>&1 | tee "$work/log.txt"

python smoke/checkpoint.py "$work/output" --base "$work/model" 
python smoke/loss.py "$work/output" --steps 3 --seconds "$((SECONDS - started))"
