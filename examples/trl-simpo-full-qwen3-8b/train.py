"""Train with a TRL trainer that has no `trl` subcommand yet. All settings stand in train.yaml:

    accelerate launch --config_file accelerate.yaml train.py --config train.yaml
"""

from trl import (
    DatasetMixtureConfig,
    ModelConfig,
    TrlParser,
    get_dataset,
    get_peft_config,
    get_quantization_config,
)
from trl.experimental.cpo import CPOConfig, CPOTrainer
from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> None:
    parser = TrlParser((CPOConfig, ModelConfig, DatasetMixtureConfig))
    # Unknown keys are an error here: a typo must not train with a default.
    config, model_config, data_config = parser.parse_args_and_config()
    model = AutoModelForCausalLM.from_pretrained(
        model_config.model_name_or_path,
        revision=model_config.model_revision,
        dtype=model_config.dtype,
        attn_implementation=model_config.attn_implementation,
        quantization_config=get_quantization_config(model_config),
        **(config.model_init_kwargs or {}),
    )
    config.model_init_kwargs = None
    tokenizer = AutoTokenizer.from_pretrained(model_config.model_name_or_path)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    trainer = CPOTrainer(
        model=model,
        args=config,
        train_dataset=get_dataset(data_config)["train"],
        processing_class=tokenizer,
        peft_config=get_peft_config(model_config),
    )
    trainer.train(resume_from_checkpoint=config.resume_from_checkpoint)
    trainer.save_model(config.output_dir)


if __name__ == "__main__":
    main()
