# expect: trl.experimental.ppo has no 'PPOConfig'
from datasets import load_dataset
from peft import LoraConfig
from trl.experimental.ppo import PPOConfig, PPOTrainer


def main() -> None:
    arguments = PPOConfig(
        output_dir="outputs",
        per_device_train_batch_size=2,
        gradient_accumulation_steps=4,
        learning_rate=8e-6,
        beta=0.1,
        max_length=1024,
        bf16=True,
        model_init_kwargs={"dtype": "bfloat16", "attn_implementation": "sdpa", "device_map": None},
        report_to="none",
    )
    trainer = PPOTrainer(
        model="Qwen/Qwen3-0.6B",
        args=arguments,
        train_dataset=load_dataset("json", data_files="data/train.jsonl", split="train"),
        peft_config=LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear"),
    )
    trainer.train()


if __name__ == "__main__":
    main()
