import json

import pytest

from advisor.errors import InputError
from advisor.facts.gpus import gpu_summaries, load_gpu
from advisor.paths import rules_root

CATALOG = json.loads((rules_root() / "catalog" / "gpus.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("typed", "gpu"),
    [
        ("h100", "h100-sxm"),
        ("H100-80GB", "h100-sxm"),
        ("NVIDIA H100 80GB HBM3", "h100-sxm"),
        ("A100 80GB", "a100-sxm-80"),
        ("NVIDIA A100-SXM4-80GB", "a100-sxm-80"),
        ("a100_40gb", "a100-sxm-40"),
        ("4090", "rtx-4090"),
        ("RTX 4090", "rtx-4090"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("l40s", "l40s"),
        ("Tesla T4", "t4"),
        ("b200", "b200-sxm"),
        ("mi300x", "mi300x"),
    ],
)
def test_aliases(typed, gpu):
    assert load_gpu(typed).id == gpu


@pytest.mark.parametrize("typed", ["a100", "V100", "RTX 6000", "rtx pro 6000"])
def test_ambiguous_names_list_the_candidates(typed):
    with pytest.raises(InputError, match=r"^gpu: .* is not one card: choose .* or "):
        load_gpu(typed)


def test_unknown_names_suggest():
    with pytest.raises(InputError, match=r"^gpu: 'h10' is not known; close: .*h100"):
        load_gpu("h10")
    with pytest.raises(InputError, match="known: rtx-3060-12gb"):
        load_gpu("quantum chip")


def test_card_without_memory_refuses():
    with pytest.raises(InputError, match="memory of L20 is not in the catalog"):
        load_gpu("l20")


def test_nominal_memory_loses_one_percent():
    gpu = load_gpu("h100")
    assert gpu.memory_gib == pytest.approx(79.2)
    assert gpu.memory_source == "nominal 80 GB read as GiB minus 1 %"


def test_reported_memory_is_kept():
    assert (load_gpu("l40s").memory_gib, load_gpu("l40s").memory_source) == (44.99, "reported usable memory")


def test_card_of_two_devices_counts_each():
    gpu = load_gpu("mi250x")
    assert gpu.memory_gib == pytest.approx(63.36)
    assert gpu.tflops_bf16 == pytest.approx(191.5)


def test_price_is_the_lowest_gpu_price():
    gpu = load_gpu("h100")
    assert gpu.usd_per_gpu_hour == 3.99
    assert gpu.price_source is not None
    assert gpu.price_source.startswith("Lambda")
    assert load_gpu("a100-sxm-40").usd_per_gpu_hour is None, "the only prices are of the virtual machine"


def test_cards_without_bf16_use_fp16_rates():
    gpu = load_gpu("t4")
    assert not gpu.supports_bf16
    assert gpu.tflops_bf16 == 65


def test_every_alias_is_unique():
    seen: dict[str, str] = {}
    for row in CATALOG["accelerators"]:
        for name in (row["id"], row["name"], *row["aliases"]):
            assert load_if_known(name) in (row["id"], None)
            assert seen.setdefault(name, row["id"]) == row["id"]


def load_if_known(name):
    try:
        return load_gpu(name).id
    except InputError:
        return None


def test_ambiguous_candidates_exist():
    ids = {row["id"] for row in CATALOG["accelerators"]}
    assert all(set(candidates) <= ids for candidates in CATALOG["ambiguous"].values())


def test_summaries():
    summaries = {row["id"]: row for row in gpu_summaries()}
    assert len(summaries) == len(CATALOG["accelerators"]) - 1
    assert summaries["rtx-4090"]["memory_gib"] == pytest.approx(23.76)
