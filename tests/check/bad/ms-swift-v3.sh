# expect: 4: train_type: gone since ms-swift 4.1.0, it is tuner_type now
NPROC_PER_NODE=8 swift sft \
  --model Qwen/Qwen3-8B \
  --train_type lora \
  --dataset data.jsonl
