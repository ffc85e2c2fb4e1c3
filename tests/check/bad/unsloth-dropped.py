# expect: 7: max_seq_lenght: no such key
from trl import SFTConfig
from unsloth import FastLanguageModel

model, tokenizer = FastLanguageModel.from_pretrained(
    model_name="Qwen/Qwen3-14B",
    max_seq_lenght=2048,
)
args = SFTConfig(output_dir="output", per_device_train_batch_size=2)
