"""What the documents of each framework are made of, in terms of its released source.

A document is what the framework reads as one: the YAML of a command, the overrides of an entry point, the
keywords of a call. Where a release has another layout, the first candidate that is there is taken.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping

from tools.schema_sources import hydra, signatures, unsloth_source
from tools.schema_sources.archives import Source
from tools.schema_sources.code import Code, Definition, Unknown
from tools.schema_sources.rows import Row, Section, all_rows
from tools.schema_sources.snapshot import Document, Schema

Packages = Mapping[str, Source]
"""Import name of a package -> its source."""


def there(code: Code, *candidates: str) -> str | None:
    """The first of `module:Class` that exists."""
    for candidate in candidates:
        try:
            code.class_at(candidate)
        except Unknown:
            continue
        return candidate
    return None


def present(code: Code, *groups: tuple[str, ...] | str) -> list[str]:
    """One class of each group of candidates, groups without one left out."""
    found = (there(code, *([group] if isinstance(group, str) else group)) for group in groups)
    return [reference for reference in found if reference]


# --- TRL ------------------------------------------------------------------------------------------

TRL_COMMANDS = {
    "sft": "SFTConfig", "dpo": "DPOConfig", "kto": "KTOConfig", "reward": "RewardConfig", "grpo": "GRPOConfig",
    "rloo": "RLOOConfig", "distillation": "DistillationConfig", "gkd": "GKDConfig", "cpo": "CPOConfig",
    "orpo": "ORPOConfig",
}  # fmt: skip
"""Command, or method of a script that hands the same YAML to TrlParser -> class of its training arguments."""
TRL_LAUNCH = {
    "accelerate_config": "trl/cli/accelerate_config.py",
    "config_file": "",
    "env": "trl/scripts/utils.py",
}


def trl(packages: Packages) -> Schema:
    code, schema = Code(packages), Schema()
    shared = present(
        code, "trl.trainer.model_config:ModelConfig", ("trl.scripts.utils:DatasetMixtureConfig",)
    )  # fmt: skip
    for name, config in TRL_COMMANDS.items():
        lower = config.removesuffix("Config").lower()
        own = there(
            code, f"trl.trainer.{lower}_config:{config}", f"trl.experimental.{lower}.{lower}_config:{config}"
        )
        if own is None:
            continue
        schema.add_classes(name, code, [own, *_trl_script_arguments(code, name), *shared])
        _trl_launch(packages["trl"], schema, name)
    return schema


def _trl_script_arguments(code: Code, command: str) -> list[str]:
    """The class of the script itself; `trl grpo` and `trl rloo` have their own."""
    own = {"grpo": "GRPOScriptArguments", "rloo": "RLOOScriptArguments"}.get(command)
    candidates = [f"trl.scripts.{command}:{own}"] if own else []
    script = code.module(f"trl.scripts.{command}")
    return present(code, (*candidates, "trl.scripts.utils:ScriptArguments")) if script else []


def _trl_launch(source: Source, schema: Schema, name: str) -> None:
    """Keys that the parser and the launcher take out of the YAML before any dataclass sees them."""
    if "TrlLaunch" not in schema.sections:
        found: dict[str, Row] = {}
        utils = source.read("trl/scripts/utils.py") or ""
        if 'config.pop("env"' in utils:
            found["env"] = {"type": "dict", "open": True, "computed": True}
        launchers = ("trl/cli/accelerate_config.py", "trl/cli.py")
        if any('"--accelerate_config"' in (source.read(path) or "") for path in launchers):
            found["accelerate_config"] = {"type": "str", "computed": True}
        schema.sections["TrlLaunch"] = Section("trl/scripts/utils.py, trl/cli", found)
    schema.documents[name].includes.append("TrlLaunch")


# --- LLaMA-Factory --------------------------------------------------------------------------------

LLAMAFACTORY_STAND_INS = {
    # Chosen by the environment variable USE_MCA; without it, transformers' own.
    "llamafactory.hparams.training_args:BaseTrainingArguments": (
        "transformers.training_args_seq2seq:Seq2SeqTrainingArguments"
    )
}
LLAMAFACTORY_CLASSES = (
    "llamafactory.hparams.model_args:ModelArguments",
    "llamafactory.hparams.data_args:DataArguments",
    ("llamafactory.hparams.training_args:TrainingArguments",
     "transformers.training_args_seq2seq:Seq2SeqTrainingArguments"),
    "llamafactory.hparams.finetuning_args:FinetuningArguments",
    "llamafactory.hparams.generating_args:GeneratingArguments",
)  # fmt: skip


def llamafactory(packages: Packages) -> Schema:
    code, schema = Code(packages, LLAMAFACTORY_STAND_INS), Schema()
    schema.add_classes("train", code, present(code, *LLAMAFACTORY_CLASSES))
    return schema


# --- ms-swift -------------------------------------------------------------------------------------

MS_SWIFT_COMMANDS = {
    "swift pt": (
        "swift.arguments.pretrain_args:PretrainArguments",
        "swift.llm.argument.train_args:TrainArguments",
    ),
    "swift sft": ("swift.arguments.sft_args:SftArguments", "swift.llm.argument.train_args:TrainArguments"),
    "swift rlhf": ("swift.arguments.rlhf_args:RLHFArguments", "swift.llm.argument.rlhf_args:RLHFArguments"),
    "megatron pt": (
        "swift.megatron.arguments.pretrain_args:MegatronPretrainArguments",
        "swift.megatron.argument.train_args:MegatronTrainArguments",
    ),
    "megatron sft": (
        "swift.megatron.arguments.sft_args:MegatronSftArguments",
        "swift.megatron.argument.train_args:MegatronTrainArguments",
    ),
    "megatron rlhf": (
        "swift.megatron.arguments.rlhf_args:MegatronRLHFArguments",
        "swift.megatron.argument.rlhf_args:MegatronRLHFArguments",
    ),
}


def ms_swift(packages: Packages) -> Schema:
    code, schema = Code(packages), Schema()
    for command, candidates in MS_SWIFT_COMMANDS.items():
        found = present(code, candidates)
        if found:
            # swift/cli/main.py writes each value of the YAML as words behind `--key`.
            document = schema.add_classes(command, code, found)
            document.words = True
            if "config.pop('ENV'" in (packages["swift"].read("swift/cli/main.py") or ""):
                document.keys["ENV"] = {"type": "dict", "open": True, "computed": True}
    return schema


# --- Axolotl --------------------------------------------------------------------------------------

AXOLOTL_SCHEMAS = (
    "axolotl.utils.schemas.config:AxolotlInputConfig",
    "axolotl.utils.config.models.input.v0_4_1:AxolotlInputConfig",
)


def axolotl(packages: Packages) -> Schema:
    code, schema = Code(packages), Schema()
    schema.add_classes("train", code, present(code, AXOLOTL_SCHEMAS))
    built_in = _axolotl_built_in(code)
    for plugin, arguments in _axolotl_plugins(code, packages["axolotl"]):
        definition = code.class_at(arguments)
        needs = {} if plugin in built_in else {"requires": {"plugins": plugin}}
        held = {key: {**row, **needs} for key, row in all_rows(code, definition).items()}
        label = f"plugin {plugin}"
        schema.sections[label] = Section(code.origin(definition), held)
        schema.documents["train"].includes.append(label)
    return schema


def _axolotl_built_in(code: Code) -> list[str]:
    """Plugins that are registered unasked; releases before 0.21 have none."""
    try:
        return code.value("axolotl.integrations.base", ast.Name("BUILTIN_PLUGINS"))
    except Unknown:
        return []


def _axolotl_plugins(code: Code, source: Source) -> list[tuple[str, str]]:
    """Dotted name of each plugin class, and the model its `get_input_args` names."""
    found: list[tuple[str, str]] = []
    for folder in source.names("axolotl/integrations"):
        module = code.module(f"axolotl.integrations.{folder}")
        for name in module.bindings if module else ():
            if not name.endswith("Plugin") or name == "BasePlugin":
                continue
            assert module
            try:
                arguments = _input_args(code, code.class_at(f"{module.name}:{name}"))
                there(code, arguments)
            except Unknown:
                continue
            found.append((f"{module.name}.{name}", arguments))
    return found


def _input_args(code: Code, plugin: Definition) -> str:
    for each in code.mro(plugin):
        try:
            body = signatures.method(each, "get_input_args").node
        except Unknown:
            continue
        for node in ast.walk(body):
            if isinstance(node, ast.Return) and isinstance(node.value, ast.Constant) and node.value.value:
                module, _, name = str(node.value.value).rpartition(".")
                return f"{module}:{name}"
    raise Unknown(plugin.name)


# --- Unsloth --------------------------------------------------------------------------------------


UNSLOTH_COMMAND = "unsloth_cli.config:Config"
"""The YAML of `unsloth train`."""


def unsloth(packages: Packages) -> Schema:
    # The command stands in a package of its own inside the same wheel.
    code, schema = Code({**packages, "unsloth_cli": packages["unsloth"]}), Schema()
    for name, (owner, function) in unsloth_source.CALLS.items():
        definition = signatures.method(code.class_at(owner), function)
        rows = signatures.rows(code, definition)
        if function == "from_pretrained":
            rows = {**unsloth_source.loader_keywords(code), **rows}
        module = code.module(definition.module)
        schema.sections[name] = Section(f"{module.path if module else owner}:{function}", rows)
        # The **kwargs of get_peft_model become arguments of peft's LoraConfig.
        extra = ["peft.tuners.lora.config:LoraConfig"] if function == "get_peft_model" else []
        schema.add_classes(name, code, present(code, *extra)).includes.insert(0, name)
    patch = unsloth_source.read_patch(code, packages["transformers"].version)
    for config in unsloth_source.CONFIGS:
        lower = config.removesuffix("Config").lower()
        own = there(
            code, f"trl.trainer.{lower}_config:{config}", f"trl.experimental.{lower}.{lower}_config:{config}"
        )
        if own:
            document = schema.add_classes(config, code, [own])
            document.keys |= patch.changes(f"{lower}_trainer", schema.keys(config))
    command = present(code, UNSLOTH_COMMAND)
    if command:
        schema.add_classes("cli", code, command)
    return schema


# --- verl -----------------------------------------------------------------------------------------

VERL_ROOT = "verl/trainer/config"
VERL_DOCUMENTS: dict[str, tuple[tuple[str, Mapping[str, str]], ...]] = {
    "main_ppo": (("ppo_trainer", {}),),
    "main_ppo megatron": (("ppo_trainer", {"model_engine": "megatron"}), ("ppo_megatron_trainer", {})),
    "sft_trainer": (("sft_trainer_engine", {}),),
    "sft_trainer megatron": (("sft_trainer_engine", {"engine": "megatron", "optim": "megatron"}),),
    "fsdp_sft_trainer": (("sft_trainer", {}),),
}
"""Entry point and engine -> its configuration and the options chosen in it, first that is there."""


def verl(packages: Packages) -> Schema:
    code, schema = Code(packages), Schema()
    tree = hydra.Hydra(packages["verl"], VERL_ROOT)
    for name, candidates in VERL_DOCUMENTS.items():
        for config, chosen in candidates:
            files = [config, *(f"{group}/{option}" for group, option in chosen.items())]
            if any(packages["verl"].read(f"{VERL_ROOT}/{file}.yaml") is None for file in files):
                continue
            rows = _verl_rows(code, tree.compose(config, chosen))
            keys = {**rows, **_verl_choices(tree, config, chosen), **_verl_free(packages["verl"], rows)}
            schema.documents[name] = Document(keys=keys)
            break
    _share(schema, "ppo", [name for name in schema.documents if name.startswith("main_ppo")])
    _share(schema, "sft", [name for name in schema.documents if name.startswith("sft_trainer")])
    return schema


def _verl_rows(code: Code, tree: hydra.Tree) -> dict[str, Row]:
    leaves = hydra.flat(tree)
    found = {
        key: {**hydra.row(leaf), "from": leaf.file.removeprefix(f"{VERL_ROOT}/")}
        for key, leaf in leaves.items()
    }
    for prefix, target in hydra.targets(tree).items():
        module, _, name = target.rpartition(".")
        try:
            definition = code.class_at(f"{module}:{name}")
        except Unknown:
            continue
        declared = all_rows(code, definition)
        for key, row in declared.items():
            full = f"{prefix}{key}"
            if full in found and "added" not in found[full]:
                found[full] = _declared(found[full], row)
            elif full not in found and not _inside(full, found) and "[" not in key and "." not in key:
                # The class takes it and the tree lacks it: a command line adds it with `+`.
                found[full] = {**row, "from": code.origin(definition), "added": True}
    return found


def _verl_choices(tree: hydra.Hydra, config: str, chosen: Mapping[str, str]) -> dict[str, Row]:
    """`group=option`: which file a part of the tree comes from."""
    return {
        key: {
            "type": "str|dict",
            "choices": options,
            "default": chosen.get(key, default),
            "from": f"{config}.yaml",
        }
        for key, (options, default) in tree.groups(config).items()
    }


VERL_HANDED_ON = (
    "override_config", "override_transformer_config", "override_ddp_config", "override_optimizer_config",
    "override_mcore_model_config",
)  # fmt: skip
"""Mappings that verl hands to another library as they are: any key may be added there."""
VERL_REWARD_KWARGS = (
    "verl/experimental/reward_loop/reward_manager/dapo.py", "verl/experimental/reward/reward_loop/dapo.py",
    "verl/trainer/ppo/reward.py", "verl/trainer/main_ppo.py",
)  # fmt: skip


def _verl_free(source: Source, rows: Mapping[str, Row]) -> dict[str, Row]:
    """Mappings with free content: those handed on, and the keywords of reward managers, which no file lists."""
    found: dict[str, Row] = {}
    for key, row in rows.items():
        parts = key.split(".")
        for end, part in enumerate(parts, start=1):
            if part in VERL_HANDED_ON:
                found[".".join(parts[:end])] = {
                    **(row if end == len(parts) else {}),
                    "type": "dict",
                    "optional": True,
                    "open": True,
                    "from": row["from"],
                }
    for path in VERL_REWARD_KWARGS:
        for owner in re.findall(r'config\.([\w.]+)\.get\("reward_kwargs"', source.read(path) or ""):
            if _inside(owner, rows):
                key = f"{owner}.reward_kwargs"
                found[key] = {"type": "dict", "open": True, "computed": True, "from": path, "added": True}
    return found


def _inside(key: str, found: Mapping[str, Row]) -> bool:
    return any(other.startswith(f"{key}.") for other in found)


def _declared(tree: Row, declared: Row) -> Row:
    """The tree's key with the type that the class declares for it."""
    kept = {k: v for k, v in declared.items() if k in ("type", "choices", "open")}
    optional = {"optional": True} if declared.get("optional") or tree["default"] is None else {}
    row = {**kept, **optional, **{k: v for k, v in tree.items() if k in ("default", "from", "open")}}
    return row


def _share(schema: Schema, label: str, names: list[str]) -> None:
    """Moves the keys that all of these documents have alike into one section."""
    if len(names) < 2:
        return
    first, *others = (schema.documents[name].keys for name in names)
    same = {key: row for key, row in first.items() if all(other.get(key) == row for other in others)}
    schema.sections[label] = Section(VERL_ROOT, same)
    for name in names:
        document = schema.documents[name]
        document.includes.append(label)
        document.keys = {key: row for key, row in document.keys.items() if key not in same}


RECIPES: Mapping[str, Callable[[Packages], Schema]] = {
    "trl": trl,
    "axolotl": axolotl,
    "llamafactory": llamafactory,
    "ms-swift": ms_swift,
    "unsloth": unsloth,
    "verl": verl,
}
