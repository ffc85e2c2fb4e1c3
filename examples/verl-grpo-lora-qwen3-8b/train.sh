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
  actor_rollout_ref.model.path=Qwen/Qwen3-8B  # the model to start from
  actor_rollout_ref.model.lora_rank=32  # rank of the adapters
  actor_rollout_ref.model.lora_alpha=64  # adapter output is scaled by alpha / rank
  'actor_rollout_ref.model.target_modules=[q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj]'  # modules that get adapters, named: no guess by peft

  # Data
  data.train_files=data/train.parquet  # your rows, as prepare_data.py writes them
  data.val_files=data/train.parquet  # verl wants a validation file; it is not used: see trainer.test_freq
  data.max_prompt_length=1024  # longest prompt, tokens
  data.max_response_length=1024  # longest answer, tokens
  data.filter_overlong_prompts=True  # longer prompts are left out; unfiltered they end the run
  data.seed=42  # shuffling

  # Batch
  data.train_batch_size=16  # prompts per step over all GPUs; each is answered rollout.n times
  actor_rollout_ref.actor.ppo_mini_batch_size=16  # prompts per optimizer step: one step per batch, strictly on-policy
  actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=2  # sequences per GPU and pass, where batches are not filled by tokens
  actor_rollout_ref.actor.use_dynamic_bsz=True  # passes are filled by tokens, without padding
  actor_rollout_ref.actor.ppo_max_token_len_per_gpu=4096  # tokens per GPU and pass: micro batch x longest sequence
  trainer.total_epochs=1  # passes over the data

  # Optimization
  actor_rollout_ref.actor.optim.lr=1e-05  # peak learning rate
  actor_rollout_ref.actor.optim.lr_scheduler_type=cosine  # shape of the learning rate
  actor_rollout_ref.actor.optim.lr_warmup_steps_ratio=0.03  # share of all steps
  actor_rollout_ref.actor.optim.weight_decay=0.0  # decoupled weight decay
  actor_rollout_ref.actor.optim.clip_grad=1.0  # gradients are scaled down to this norm
  actor_rollout_ref.actor.optim.optimizer=AdamW  # AdamW; Megatron's Adam decays weights decoupled too

  # Rollouts (vLLM)
  actor_rollout_ref.rollout.name=vllm  # vLLM servers on the training GPUs
  actor_rollout_ref.rollout.n=8  # answers per prompt
  actor_rollout_ref.rollout.tensor_model_parallel_size=1  # GPUs that share one vLLM engine; verl's default is 2
  actor_rollout_ref.rollout.data_parallel_size=1  # data-parallel ranks inside an engine
  actor_rollout_ref.rollout.expert_parallel_size=1  # ranks the experts are spread over: 1, or all of the engine
  actor_rollout_ref.rollout.gpu_memory_utilization=0.75  # share of each GPU that vLLM may take
  actor_rollout_ref.rollout.free_cache_engine=True  # vLLM gives its memory back while the policy trains
  actor_rollout_ref.rollout.load_format=safetensors  # vLLM reads the base weights itself: only adapters are sent to it
  actor_rollout_ref.rollout.layered_summon=True  # adapters are gathered layer by layer: a lower peak
  transfer_queue.backend.SimpleStorage.num_data_storage_units=2  # each takes a CPU; the default of 8 can hang a small node
  ray_kwargs.ray_init.num_cpus=32  # CPUs for Ray; under Slurm it would count the whole machine's

  # Rewards
  reward.custom_reward_function.path=reward_verl.py  # calls your function in rewards.py
  reward.custom_reward_function.name=compute_score  # the function in that file

  # Precision and memory
  actor_rollout_ref.actor.strategy=fsdp2  # PyTorch FSDP2
  actor_rollout_ref.actor.fsdp_config.model_dtype=bfloat16  # weights in bf16; verl's default is fp32
  actor_rollout_ref.actor.fsdp_config.offload_policy=False  # everything stays on the GPU
  actor_rollout_ref.actor.fsdp_config.param_offload=False  # weights and states stay on the GPU during rollouts
  actor_rollout_ref.actor.fsdp_config.optimizer_offload=False  # weights and states stay on the GPU during rollouts
  actor_rollout_ref.model.enable_gradient_checkpointing=False  # recompute activations in backward, or keep them (faster)
  actor_rollout_ref.model.use_liger=False  # stock modules

  # Parallelism
  trainer.nnodes=1  # machines
  trainer.n_gpus_per_node=8  # GPUs of each

  # Logging and checkpoints
  trainer.default_local_dir=output  # checkpoints
  trainer.save_freq=200  # steps between checkpoints; -1 would save none in RL
  trainer.max_actor_ckpt_to_keep=2  # older checkpoints are deleted
  trainer.test_freq=-1  # no validation while training
  trainer.val_before_train=False  # nor before
  'trainer.logger=[console]'  # where numbers go; the default wants a wandb login
  trainer.project_name=posttraining  # project in the tracker
  trainer.experiment_name=qwen3-8b-grpo-lora  # name of the run
)

exec python3 -m verl.trainer.main_ppo "${overrides[@]}" "$@"
