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
python smoke/judge.py --world-size 128 --model-dir smoke/model_config train.yaml

echo "smoke: a tiny random model of the same architecture"
python smoke/tiny_model.py --config smoke/model_config/config.json --rows smoke/rows.jsonl --out "$work/model"
# ms-swift would start torchrun if these were set, and caches rows outside the repo unless told.
unset NPROC_PER_NODE NNODES NODE_RANK MASTER_ADDR MASTER_PORT
export MODELSCOPE_CACHE="$PWD/$work/modelscope"
spread=(--drop deepspeed --drop fsdp --drop sequence_parallel_size)
if ((processes > 1)); then
  export NPROC_PER_NODE="$processes" MASTER_PORT="$((20000 + RANDOM % 10000))"
  spread=(ddp_backend=gloo)
fi

echo "smoke: swift sft train.yaml, with these overrides; processes: $processes"
python smoke/override.py smoke/nearest.yaml "$work/train.yaml" \
  model="$work/model" check_model=false torch_dtype=float32 bf16=false fp16=false use_cpu=true attn_impl=sdpa \
  max_steps=3 save_steps=3 report_to='[none]' output_dir="$work/output" \
  per_device_train_batch_size=2 gradient_accumulation_steps=1 \
  "${spread[@]}" --drop packing --drop use_liger_kernel \
  --drop adapters --drop ref_adapters --drop vllm_mode --drop vllm_gpu_memory_utilization \
  --drop vllm_tensor_parallel_size --drop vllm_max_model_len --drop sleep_level

swift sft "$work/train.yaml" 2>&1 | tee "$work/log.txt"

python smoke/checkpoint.py "$work/output" --base "$work/model" 
python smoke/loss.py "$work/output" --steps 3 --seconds "$((SECONDS - started))" --partial 'Megatron needs GPUs: the same method was trained on transformers'
