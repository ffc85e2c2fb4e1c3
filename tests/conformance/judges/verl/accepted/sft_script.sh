#!/usr/bin/env bash
set -euo pipefail
GPUS=${GPUS:-4}
torchrun --standalone --nproc-per-node "$GPUS" -m verl.trainer.sft_trainer \
  "model.path=Qwen/Qwen3-8B" \
  "model.lora_rank=16" \
  "model.lora_alpha=32" \
  "data.train_files=data/train.parquet" \
  "data.train_batch_size=64" \
  "data.micro_batch_size_per_gpu=2" \
  "data.max_length=2048" \
  "engine.strategy=fsdp2" \
  "engine.model_dtype=bfloat16" \
  "optim.lr=1e-4" \
  "trainer.total_epochs=1" \
  "trainer.logger=[console]" \
  "$@"
