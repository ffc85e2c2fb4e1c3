# expect: without device_map: None
from datasets import load_dataset
from peft import LoraConfig
from trl.experimental.orpo import ORPOConfig, ORPOTrainer


def main() -> None:
    arguments = ORPOConfig(
        output_dir="outputs",
        per_device_train_batch_size=2,
        gradient_accumulation_steps=4,
        learning_rate=8e-6,
        beta=0.1,
        max_length=1024,
        bf16=True,
        model_init_kwargs={"dtype": "bfloat16", "attn_implementation": "sdpa"},
        report_to="none",
    )
    trainer = ORPOTrainer(
        model="Qwen/Qwen3-0.6B",
        args=arguments,
        train_dataset=load_dataset("json", data_files="data/train.jsonl", split="train"),
        peft_config=LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear"),
    )
    trainer.train()


if __name__ == "__main__":
    main()
