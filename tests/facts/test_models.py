import json
from pathlib import Path

import pytest

from advisor.errors import InputError
from advisor.facts.architectures import known_types, weights_of
from advisor.facts.models import (
    expert_parameter_names,
    linear_module_names,
    load_model,
    lora_modules,
    lora_parameters,
    model_summaries,
    names_peft_redirects,
)
from advisor.paths import rules_root

ROWS = json.loads((rules_root() / "catalog" / "models.json").read_text(encoding="utf-8"))["models"]
CONFIGS = {row["id"]: row["config"] for row in ROWS if "config" in row}
SIZED = [row for row in ROWS if "check_total" in row]
TINY_LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 100,
    "torch_dtype": "float16",
}


def config_of(row):
    return row["config"] if "config" in row else CONFIGS[row["config_of"]]


def countable(row):
    return config_of(row)["model_type"] in known_types()


@pytest.mark.parametrize("row", [row for row in SIZED if countable(row)], ids=lambda row: row["id"])
def test_counter_equals_the_total_counted_by_transformers(row):
    assert sum(weight.elements for weight in weights_of(config_of(row))) == row["check_total"]


def test_most_of_the_catalog_is_countable():
    assert sum(countable(row) for row in SIZED) >= 195


@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("deepseek-ai/DeepSeek-R1", 671_026_404_352),
        ("Qwen/Qwen3-235B-A22B", 235_093_634_560),
        ("Qwen/Qwen3-30B-A3B", 30_532_122_624),
        ("moonshotai/Kimi-K2-Instruct", 1_026_408_209_408),
        ("meta-llama/Llama-3.1-405B", 405_853_388_800),
        ("openai/gpt-oss-120b", 116_829_156_672),
        ("Qwen/Qwen2.5-7B", 7_615_616_512),
        ("HuggingFaceTB/SmolLM2-135M", 134_515_008),
    ],
)
def test_known_totals(name, total):
    assert load_model(name).total_parameters == total


@pytest.mark.parametrize(
    "row", [row for row in SIZED if countable(row) and "check_active_text" in row], ids=lambda row: row["id"]
)
def test_active_parameters(row):
    model = load_model(row["id"])
    active = model.active_parameters - model.elements("vision", "projector")
    # Biases of gpt-oss experts and the like are counted as routed here: allow their share.
    assert active == pytest.approx(row["check_active_text"], rel=2e-3)


def test_facts_of_a_mixture_with_latent_attention():
    model = load_model("deepseek-ai/DeepSeek-V3")
    assert model.mla
    assert model.moe is not None
    assert (model.moe.experts, model.moe.experts_per_token, model.moe.moe_layers) == (256, 8, 58)
    assert (model.moe.expert_ffn, model.moe.shared_ffn, model.ffn) == (2048, 2048, 18432)
    assert (model.head_dim, model.decoder_layer, model.native_dtype) == (192, "DeepseekV3DecoderLayer", "fp8")
    assert model.elements("expert") == 653_908_770_816


def test_ids_are_forgiving():
    assert load_model("qwen/qwen3-8b").id == "Qwen/Qwen3-8B"
    assert load_model("Qwen3-8B").id == "Qwen/Qwen3-8B"
    assert load_model("https://huggingface.co/Qwen/Qwen3-8B").id == "Qwen/Qwen3-8B"


def test_a_base_model_keeps_its_own_id():
    model = load_model("qwen2.5-7b")
    assert model.id == "Qwen/Qwen2.5-7B"
    assert "Qwen/Qwen2.5-7B-Instruct" in model.context_note


def test_unknown_model_names_close_ones_and_the_way_out():
    with pytest.raises(InputError, match=r"^model: 'Qwen3-8' is not in the catalog \(close: .*Qwen/Qwen3-8B"):
        load_model("Qwen3-8")
    with pytest.raises(InputError, match=r"--model path/to/config\.json"):
        load_model("nobody/nothing-like-it")


def test_row_without_dimensions_refuses():
    with pytest.raises(InputError, match="listed but cannot be sized: transformers has no class"):
        load_model("moonshotai/Kimi-K3")


def test_unknown_architecture_is_never_approximated(tmp_path):
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**TINY_LLAMA, "model_type": "xyz", "architectures": ["XyzForCausalLM"]}))
    with pytest.raises(InputError, match=r"architecture 'XyzForCausalLM' \(model type 'xyz'\) is not known"):
        load_model(str(file))


def test_local_folder_is_the_users_checkpoint(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(TINY_LLAMA))
    model = load_model(str(tmp_path))
    assert model.local_path == str(tmp_path.resolve())
    assert (model.native_dtype, model.head_dim, model.tied_embeddings) == ("fp16", 16, False)
    assert model.total_parameters == 2 * 100 * 64 + 64 + 2 * (64 * 64 * 2 + 2 * 32 * 64 + 3 * 64 * 128 + 128)
    assert load_model(str(tmp_path / "config.json")).total_parameters == model.total_parameters


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "holds no config.json"), ("{", "not readable JSON"), ("{}", "has no model_type")],
)
def test_broken_folders(tmp_path: Path, content, message):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=message):
        load_model(str(tmp_path))


def test_missing_path():
    with pytest.raises(InputError, match="does not exist"):
        load_model("./no/such/config.json")


def test_size_of_the_wrong_kind_names_the_key(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({**TINY_LLAMA, "hidden_size": "64"}))
    with pytest.raises(InputError, match="gives hidden_size as '64'"):
        load_model(str(tmp_path))


def test_lora_on_a_dense_model():
    model = load_model("Qwen/Qwen3-8B")
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    assert linear_module_names(model, ("all-linear",)) == names
    assert lora_parameters(model, ("all-linear",), 16) == 43_646_976
    assert lora_parameters(model, tuple(names), 16) == 43_646_976
    assert linear_module_names(model, ("attention",)) == names[:4]
    assert expert_parameter_names(model) == []


def test_lora_on_routed_experts():
    model = load_model("Qwen/Qwen3-30B-A3B")
    assert names_peft_redirects(model) == ("gate", "gate_proj", "up_proj", "down_proj")
    assert expert_parameter_names(model) == ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    attention = lora_parameters(model, ("attention",), 16)
    routed = 48 * 128 * 16 * ((2048 + 1536) + (768 + 2048))
    assert lora_parameters(model, ("all-linear",), 16) == attention
    assert lora_parameters(model, ("experts",), 16) == attention + routed


def test_lora_leaves_tower_router_and_head_alone():
    model = load_model("Qwen/Qwen3.5-35B-A3B")
    roles = {weight.role for weight in lora_modules(model, ("all-linear",))}
    assert roles == {"attention", "shared_expert"}
    assert "vision" in {weight.role for weight in lora_modules(model, ("all-linear",), vision=True)}


def test_unknown_lora_target_lists_what_there_is():
    with pytest.raises(InputError, match=r"^lora_targets: 'qkv' is no linear module .*q_proj"):
        lora_modules(load_model("Qwen/Qwen3-8B"), ("qkv",))


def test_summaries_cover_every_row():
    summaries = {row["id"]: row for row in model_summaries()}
    assert len(summaries) == len(ROWS)
    assert summaries["Qwen/Qwen3-8B"]["total"] == 8_190_735_360
    assert summaries["moonshotai/Kimi-K3"]["total"] is None
    assert summaries["moonshotai/Kimi-K3"]["note"]
