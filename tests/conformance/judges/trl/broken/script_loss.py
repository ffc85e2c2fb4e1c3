# expect: loss_type: 'simpoo' is not one of
from datasets import load_dataset
from peft import LoraConfig
from trl.experimental.cpo import CPOConfig, CPOTrainer


def main() -> None:
    arguments = CPOConfig(
        output_dir="outputs",
        per_device_train_batch_size=2,
        gradient_accumulation_steps=4,
        learning_rate=8e-6,
        beta=2.0,
        loss_type="simpoo",
        simpo_gamma=1.0,
        cpo_alpha=0.0,
        max_length=1024,
        bf16=True,
        model_init_kwargs={"dtype": "bfloat16", "attn_implementation": "sdpa", "device_map": None},
        report_to="none",
    )
    trainer = CPOTrainer(
        model="Qwen/Qwen3-0.6B",
        args=arguments,
        train_dataset=load_dataset("json", data_files="data/train.jsonl", split="train"),
        peft_config=LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear"),
    )
    trainer.train()


if __name__ == "__main__":
    main()
