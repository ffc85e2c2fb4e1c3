#!/usr/bin/env bash
set -euo pipefail
ray start --head
ray job submit --address http://127.0.0.1:8265 -- python3 -m verl.trainer.main_ppo \
  "algorithm.adv_estimator=grpo" \
  "model_engine=dp" \
  "data.train_files=data/train.parquet" \
  "data.val_files=data/val.parquet" \
  "data.train_batch_size=64" \
  "data.max_prompt_length=512" \
  "data.max_response_length=1024" \
  "data.filter_overlong_prompts=True" \
  "actor_rollout_ref.model.path=Qwen/Qwen3-8B" \
  "actor_rollout_ref.actor.strategy=fsdp2" \
  "actor_rollout_ref.actor.optim.lr=1e-6" \
  "actor_rollout_ref.actor.ppo_mini_batch_size=32" \
  "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=2" \
  "actor_rollout_ref.actor.use_kl_loss=True" \
  "actor_rollout_ref.rollout.name=vllm" \
  "actor_rollout_ref.rollout.n=8" \
  "actor_rollout_ref.rollout.tensor_model_parallel_size=2" \
  "actor_rollout_ref.rollout.gpu_memory_utilization=0.5" \
  "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=4" \
  "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=4" \
  "trainer.logger=[console,tensorboard]" \
  "trainer.nnodes=1" \
  "trainer.n_gpus_per_node=8" \
  "$@"
