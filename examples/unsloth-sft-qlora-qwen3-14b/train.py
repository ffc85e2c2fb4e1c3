"""SFT with Unsloth 2026.10.9. The settings come first, each with its reason; then what they are for.

    python train.py                                    on one GPU; run.sh starts it on more
    python train.py --set train.learning_rate=5e-5     another value for one setting
    python train.py --resume                           go on from the last checkpoint, if there is one
"""

from unsloth import FastLanguageModel  # first: it rewrites the libraries below while it is imported  # isort: skip

import argparse
import ast
import os

import torch
from datasets import load_dataset
from trl import SFTConfig, SFTTrainer
from transformers.trainer_utils import get_last_checkpoint

LOAD = dict(
    # Model
    model_name='Qwen/Qwen3-14B',  # the model to start from
    max_seq_length=512,  # longest sequence, tokens
    load_in_4bit=True,  # 4-bit NF4 base
    random_state=42,  # initialisation
    # Precision and kernels
    dtype=torch.bfloat16,  # bf16 autocast
    use_gradient_checkpointing=False,  # activations are kept: faster
)

ADAPTER = dict(
    # Adapter
    r=16,  # rank of the adapters
    lora_alpha=32,  # adapter output is scaled by alpha / rank
    lora_dropout=0.0,  # 0 keeps Unsloth's fused kernels
    target_modules=['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'],  # modules that get adapters, named
    use_gradient_checkpointing=False,  # as above
    random_state=42,  # initialisation
)

TRAIN = dict(
    # Data
    max_length=512,  # tokens per sample; TRL's default cuts at 1024
    assistant_only_loss=True,  # learn the assistant turns only
    # Method
    loss_type='nll',  # Unsloth's fused cross-entropy
    # Batch
    per_device_train_batch_size=1,  # sequences per GPU and pass
    gradient_accumulation_steps=16,  # passes per optimizer step
    num_train_epochs=3.0,  # passes over the data
    # Optimization
    learning_rate=0.0002,  # peak learning rate
    lr_scheduler_type='cosine',  # shape of the learning rate
    warmup_steps=0.03,  # below 1: share of all steps
    weight_decay=0.0,  # decoupled weight decay
    max_grad_norm=1.0,  # gradients are scaled down to this norm
    optim='adamw_torch_fused',  # optimizer and its implementation
    seed=42,  # shuffling and initialisation
    # Precision and kernels
    bf16=True,  # bf16 autocast
    fp16=False,  # bf16 autocast
    gradient_checkpointing=False,  # activations are kept: faster
    # Logging and checkpoints
    output_dir='output',  # checkpoints and the final model
    save_steps=200,  # steps between checkpoints
    save_total_limit=2,  # older checkpoints are deleted
    logging_steps=1,  # steps between log lines
    report_to='none',  # experiment tracker
    run_name='qwen3-14b-sft-qlora',  # name of the run in the tracker
)

DATA = dict(
    path='json',  # the training rows
    data_files='data/train.jsonl',  # the file
    split='train',  # which part of it
)

SECTIONS = dict(load=LOAD, adapter=ADAPTER, train=TRAIN, data=DATA)


def arguments():
    """Reads the command line; `--set` changes the settings above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--resume", nargs="?", const=True, metavar="CHECKPOINT", help="the last one, if any, unless named")
    given = parser.parse_args()
    for change in given.changes:
        name, equals, text = change.partition("=")
        section, _, key = name.partition(".")
        if section not in SECTIONS or not key or not equals:
            parser.error(f"{change!r} is not SECTION.KEY=VALUE with a section out of {', '.join(SECTIONS)}")
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        print(f"override: {name}: {SECTIONS[section].get(key, '(not set)')} -> {value}")
        SECTIONS[section][key] = value
    if given.resume is True:
        given.resume = get_last_checkpoint(TRAIN["output_dir"]) if os.path.isdir(TRAIN["output_dir"]) else None
    return given


def main():
    given = arguments()
    model, tokenizer = FastLanguageModel.from_pretrained(**LOAD)
    model = FastLanguageModel.get_peft_model(model, **ADAPTER)
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(**TRAIN),
        train_dataset=load_dataset(**DATA),
        processing_class=tokenizer,
    )
    trainer.train(resume_from_checkpoint=given.resume)
    trainer.save_model(TRAIN["output_dir"])


if __name__ == "__main__":
    main()
