# expect: 7: evaluation_strategy: gone since transformers 4.51.0, it is eval_strategy now
from trl import GRPOConfig
from unsloth import FastModel

model, tokenizer = FastModel.from_pretrained("Qwen/Qwen3-4B", max_seq_length=2048)
ARGS = GRPOConfig(
    evaluation_strategy="no",
)
