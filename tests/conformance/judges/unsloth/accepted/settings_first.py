from unsloth import FastModel  # isort: skip - patches the libraries below while it is imported

import torch
from datasets import load_dataset
from trl import SFTConfig, SFTTrainer

LOAD = dict(
    model_name="Qwen/Qwen3-30B-A3B",
    max_seq_length=2048,
    dtype=torch.bfloat16,
    load_in_4bit=False,
    load_in_16bit=True,
)
ADAPTER = dict(r=16, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"], lora_alpha=32)
TRAIN = dict(output_dir="outputs", max_length=2048, bf16=True, report_to="none")


def main() -> None:
    model, tokenizer = FastModel.from_pretrained(**LOAD)
    model = FastModel.get_peft_model(model, **ADAPTER)
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(**TRAIN),
        train_dataset=load_dataset("json", data_files="data/train.jsonl", split="train"),
        processing_class=tokenizer,
    )
    trainer.train()
    trainer.save_model("outputs/final")


if __name__ == "__main__":
    main()
