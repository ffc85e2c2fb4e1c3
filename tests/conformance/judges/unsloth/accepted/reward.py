from unsloth import FastLanguageModel  # isort: skip - patches the libraries below while it is imported

from datasets import load_dataset
from trl import RewardConfig, RewardTrainer


def main() -> None:
    model, tokenizer = FastLanguageModel.from_pretrained(
        model_name="unsloth/Qwen3-0.6B",
        max_seq_length=2048,
        load_in_4bit=False,
        load_in_16bit=True,
        num_labels=1,
    )
    model = FastLanguageModel.get_peft_model(
        model,
        r=16,
        target_modules=["q_proj", "v_proj"],
        lora_alpha=32,
    )
    arguments = RewardConfig(
        output_dir="outputs",
        per_device_train_batch_size=2,
        gradient_accumulation_steps=4,
        num_train_epochs=1.0,
        learning_rate=2e-4,
        lr_scheduler_type="cosine",
        warmup_steps=0.03,
        weight_decay=0.0,
        optim="adamw_torch_fused",
        bf16=True,
        seed=42,
        save_steps=200,
        logging_steps=1,
        report_to="none",
        max_length=1024,
    )
    trainer = RewardTrainer(
        model=model,
        args=arguments,
        train_dataset=load_dataset("json", data_files="data/train.jsonl", split="train"),
        processing_class=tokenizer,
    )
    trainer.train()
    trainer.save_model("outputs/final")


if __name__ == "__main__":
    main()
