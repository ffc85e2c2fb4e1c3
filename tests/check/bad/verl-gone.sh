# expect: 5: actor_rollout_ref.actor.megatron.grad_offload: gone since verl 0.9.1 (param_offload frees the gradients too)
python3 -m verl.trainer.main_ppo \
    model_engine=megatron \
    actor_rollout_ref.model.path=Qwen/Qwen3-8B \
    actor_rollout_ref.actor.megatron.grad_offload=True
