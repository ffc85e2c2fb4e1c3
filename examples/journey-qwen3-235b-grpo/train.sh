#!/usr/bin/env bash
# verl.trainer.main_ppo, verl 0.9.1: one override a line, its reason behind it.
# run.sh starts this after preparing the data; further overrides may follow it, the last one wins.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

overrides=(
  # Method
  algorithm.adv_estimator=grpo  # GRPO as in its paper: advantages within the group, mean over each answer
  actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-mean  # GRPO as in its paper: advantages within the group, mean over each answer
  actor_rollout_ref.actor.use_kl_loss=False  # a KL term keeps the policy near the reference; without one there is no reference
  actor_rollout_ref.actor.kl_loss_coef=0.0  # weight of the KL term

  # Model
  actor_rollout_ref.model.path=Qwen/Qwen3-235B-A22B  # the model to start from

  # Data
  data.train_files=data/train.parquet  # your rows, as prepare_data.py writes them
  data.val_files=data/train.parquet  # verl wants a validation file; it is not used: see trainer.test_freq
  data.max_prompt_length=1024  # longest prompt, tokens
  data.max_response_length=1024  # longest answer, tokens
  data.filter_overlong_prompts=True  # longer prompts are left out; unfiltered they end the run
  data.seed=42  # shuffling

  # Batch
  data.train_batch_size=128  # prompts per step over all GPUs; each is answered rollout.n times
  actor_rollout_ref.actor.ppo_mini_batch_size=128  # prompts per optimizer step: one step per batch, strictly on-policy
  actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=16  # sequences per GPU and pass, where batches are not filled by tokens
  actor_rollout_ref.actor.use_dynamic_bsz=True  # passes are filled by tokens, without padding
  actor_rollout_ref.actor.ppo_max_token_len_per_gpu=32768  # tokens per GPU and pass: micro batch x longest sequence
  trainer.total_epochs=1  # passes over the data

  # Optimization
  actor_rollout_ref.actor.optim.lr=1e-06  # peak learning rate
  actor_rollout_ref.actor.optim.lr_decay_style=cosine  # shape of the learning rate
  actor_rollout_ref.actor.optim.lr_warmup_steps_ratio=0.03  # share of all steps
  actor_rollout_ref.actor.optim.weight_decay=0.0  # decoupled weight decay
  actor_rollout_ref.actor.optim.clip_grad=1.0  # gradients are scaled down to this norm
  actor_rollout_ref.actor.optim.optimizer=adam  # AdamW; Megatron's Adam decays weights decoupled too

  # Rollouts (vLLM)
  actor_rollout_ref.rollout.name=vllm  # vLLM servers on the training GPUs
  actor_rollout_ref.rollout.n=8  # answers per prompt
  actor_rollout_ref.rollout.tensor_model_parallel_size=8  # GPUs that share one vLLM engine; verl's default is 2
  actor_rollout_ref.rollout.data_parallel_size=4  # data-parallel ranks inside an engine
  actor_rollout_ref.rollout.expert_parallel_size=32  # ranks the experts are spread over: 1, or all of the engine
  actor_rollout_ref.rollout.gpu_memory_utilization=0.4  # share of each GPU that vLLM may take
  actor_rollout_ref.rollout.free_cache_engine=True  # vLLM gives its memory back while the policy trains
  transfer_queue.backend.SimpleStorage.num_data_storage_units=32  # each takes a CPU; the default of 8 can hang a small node

  # Rewards
  reward.custom_reward_function.path=reward_verl.py  # calls your function in rewards.py
  reward.custom_reward_function.name=compute_score  # the function in that file

  # Precision and memory
  model_engine=megatron  # Megatron-core
  actor_rollout_ref.actor.megatron.use_distributed_optimizer=True  # bf16 weights; fp32 copies and Adam's states are spread over the data-parallel ranks
  actor_rollout_ref.actor.megatron.param_offload=False  # weights and states stay on the GPU during rollouts
  actor_rollout_ref.actor.megatron.optimizer_offload=False  # weights and states stay on the GPU during rollouts
  ++actor_rollout_ref.actor.optim.override_optimizer_config.optimizer_cpu_offload=True  # optimizer states and step in host memory
  ++actor_rollout_ref.actor.optim.override_optimizer_config.optimizer_offload_fraction=1.0  # optimizer states and step in host memory
  ++actor_rollout_ref.actor.optim.override_optimizer_config.overlap_cpu_optimizer_d2h_h2d=True  # optimizer states and step in host memory
  ++actor_rollout_ref.actor.optim.override_optimizer_config.use_precision_aware_optimizer=True  # optimizer states and step in host memory
  actor_rollout_ref.actor.megatron.override_transformer_config.recompute_granularity=full  # recompute every layer in backward
  actor_rollout_ref.actor.megatron.override_transformer_config.recompute_method=uniform  # recompute every layer in backward
  actor_rollout_ref.actor.megatron.override_transformer_config.recompute_num_layers=1  # recompute every layer in backward

  # Parallelism
  trainer.nnodes=16  # machines
  trainer.n_gpus_per_node=8  # GPUs of each
  actor_rollout_ref.actor.megatron.tensor_model_parallel_size=2  # ranks that slice every matrix
  actor_rollout_ref.actor.megatron.sequence_parallel=True  # they split norms and dropout along the sequence as well
  actor_rollout_ref.actor.megatron.pipeline_model_parallel_size=8  # stages the layers are split into
  ++actor_rollout_ref.actor.megatron.override_transformer_config.num_layers_in_first_pipeline_stage=12  # layers of the first stage
  ++actor_rollout_ref.actor.megatron.override_transformer_config.num_layers_in_last_pipeline_stage=10  # layers of the last stage
  actor_rollout_ref.actor.megatron.virtual_pipeline_model_parallel_size=2  # model chunks each rank holds: a shorter bubble
  actor_rollout_ref.actor.megatron.expert_model_parallel_size=8  # ranks the experts are spread over
  actor_rollout_ref.actor.megatron.expert_tensor_parallel_size=1  # ranks that slice each expert; left out it would be the tensor-parallel degree
  actor_rollout_ref.actor.megatron.context_parallel_size=1  # ranks that split the sequence
  ++actor_rollout_ref.actor.megatron.override_transformer_config.moe_router_dtype=fp32  # the router decides in fp32: stable choices

  # Logging and checkpoints
  trainer.default_local_dir=output  # checkpoints
  trainer.save_freq=200  # steps between checkpoints; -1 would save none in RL
  trainer.max_actor_ckpt_to_keep=2  # older checkpoints are deleted
  trainer.test_freq=-1  # no validation while training
  trainer.val_before_train=False  # nor before
  'trainer.logger=[console]'  # where numbers go; the default wants a wandb login
  trainer.project_name=posttraining  # project in the tracker
  trainer.experiment_name=qwen3-235b-a22b-grpo-full  # name of the run
)

exec python3 -m verl.trainer.main_ppo "${overrides[@]}" "$@"
