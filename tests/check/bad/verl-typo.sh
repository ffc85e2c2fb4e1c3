# expect: 4: actor_rollout_ref.rollout.gpu_memory_utilisation: no such key; the nearest is actor_rollout_ref.rollout.gpu_memory_utilization
python3 -m verl.trainer.main_ppo \
    actor_rollout_ref.model.path=Qwen/Qwen3-8B \
    actor_rollout_ref.rollout.gpu_memory_utilisation=0.4
