# expect: 5: max_epochs: gone since ms-swift 4.0.0, it is num_train_epochs now
MODEL=Qwen/Qwen3-8B
megatron sft \
  --model "$MODEL" \
  --max_epochs 3 \
  --tensor_model_parallel_size 2
