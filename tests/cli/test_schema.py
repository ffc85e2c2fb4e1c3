"""`schema`: what is promised holds for what is printed."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from tests.cli.conftest import BASE, Advisor

REQUESTS = {
    "plain": BASE,
    "cluster": ("--model", "Qwen/Qwen3-235B-A22B", "--gpu", "h100", "--nodes", "4", "--method", "sft"),
    "online": ("--model", "Qwen/Qwen3-8B", "--gpu", "h100", "--gpus-per-node", "8", "--method", "grpo"),
    "smallest": (*BASE, "--minimize", "gpus"),
    "longest": (*BASE, "--what-fits", "seq-len"),
    "infeasible": ("--model", "Qwen/Qwen3-32B", "--gpu", "t4", "--method", "sft", "--tuning", "full"),
}


def schema(run: Advisor, kind: str) -> dict[str, Any]:
    found = run("schema", kind).json()
    jsonschema.Draft202012Validator.check_schema(found)
    return found


@pytest.mark.parametrize("name", sorted(REQUESTS))
def test_advice(run: Advisor, name: str) -> None:
    advice = run("recommend", *REQUESTS[name], "--output", "json").json()
    jsonschema.validate(advice, schema(run, "advice"))
    request = schema(run, "request")
    jsonschema.validate(advice["request"], request)
    for row in advice["alternatives"]:
        jsonschema.validate(row["request"], request)


@pytest.mark.parametrize("name", ["plain", "cluster", "online", "infeasible"])
def test_estimate(run: Advisor, name: str) -> None:
    shown = run("estimate", *REQUESTS[name], "--output", "json").json()
    jsonschema.validate(shown, schema(run, "estimate"))


def test_pipeline_stages(run: Advisor) -> None:
    flags = ("--pipeline-parallel", "4", "--gpus-per-node", "4")
    shown = run("estimate", *BASE, *flags, "--output", "json").json()
    assert shown["memory"]["stages"]
    jsonschema.validate(shown, schema(run, "estimate"))


def test_every_field_is_named_with_a_description(run: Advisor) -> None:
    from advisor.request import Request

    properties = schema(run, "request")["properties"]
    assert set(properties) == {*Request.model_fields, "origins"}
    assert all(field["description"] for field in properties.values())


def test_the_schema_refuses(run: Advisor) -> None:
    request = schema(run, "request")
    for wrong in ({"modle": "x"}, {"nodes": 0}, {"method": "rlhf"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, request)
