from trl import DatasetMixtureConfig, ModelConfig, ScriptArguments, TrlParser, get_dataset, get_peft_config
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

if __name__ == "__main__":
    parser = TrlParser((ScriptArguments, ORPOConfig, ModelConfig, DatasetMixtureConfig))
    script, arguments, model, mixture = parser.parse_args_and_config()
    ORPOTrainer(
        model=model.model_name_or_path,
        args=arguments,
        train_dataset=get_dataset(mixture)["train"],
        peft_config=get_peft_config(model),
    ).train()
