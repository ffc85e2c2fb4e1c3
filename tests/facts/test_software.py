"""What libraries beneath a run do otherwise than today's, by release."""

from __future__ import annotations

import pytest

from advisor.errors import InputError
from advisor.estimate.model_sums import model_sums
from advisor.estimate.stage import make_setting
from advisor.facts.software import TODAY, Software, habits, software_of
from tests.estimate import samples as m
from tests.estimate.samples import lora


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        ({}, TODAY),
        ({"bitsandbytes": "0.43.1"}, Software(quantized_keeps_input=True)),
        ({"bitsandbytes": "0.43.2"}, TODAY),
        ({"bitsandbytes": "0.50.2"}, TODAY),
        ({"torchtitan": "0.0.2"}, Software(loss_as_written=True)),
        ({"torchtune": "0.5.0"}, Software(loss_as_written=True, chunked_head=True)),
    ],
)
def test_habits_by_release(versions: dict[str, str], expected: Software) -> None:
    assert software_of(versions) == expected


def test_an_unknown_library_is_named() -> None:
    with pytest.raises(InputError, match="no habit of nothing is known; known are bitsandbytes, torchtitan"):
        software_of({"nothing": "1.0"})


def test_every_habit_is_a_field_with_a_source() -> None:
    for row in habits():
        assert getattr(TODAY, row.habit) is False
        assert row.source
        assert row.what


def test_old_linears_keep_the_second_norm_and_the_product() -> None:
    """LoRA on q and v in pure bf16: the first norm's output is kept for the adapters anyway, attention's by its kernel;
    what comes on top, per token, is the second norm's, 2h, and the product of the MLP, 2f."""
    plan = lora(
        tuning="qlora", quantization="4bit", precision="bf16-pure", param_dtype="bf16",
        lora_targets=("q_proj", "v_proj"),
    )  # fmt: skip
    old, new = (
        make_setting(model_sums(m.LLAMA_8B), plan, software_of({"bitsandbytes": version})).dense_layer
        for version in ("0.41.1", "0.50.2")
    )
    assert old.whole + old.split - new.whole - new.split == 2 * 4096 + 2 * 14336
    assert new == make_setting(model_sums(m.LLAMA_8B), plan).dense_layer
