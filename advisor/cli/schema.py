"""`advisor schema`: JSON Schema of the interface. The request's is derived; the others are kept by hand here
and held against real output by a test."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import click

from advisor.estimate.types import CHECKPOINT_PARTS, HOST_PARTS, TERMS
from advisor.plan import BACKENDS
from advisor.trace.types import TERMS as TRACED_TERMS

DRAFT = "https://json-schema.org/draft/2020-12/schema"
KINDS = ("request", "advice", "estimate")
JsonSchema = dict[str, Any]

TEXT: JsonSchema = {"type": "string"}
NUMBER: JsonSchema = {"type": "number"}
INTEGER: JsonSchema = {"type": "integer"}
WHOLE: JsonSchema = {"type": "integer"}
COUNT: JsonSchema = {"type": "integer", "minimum": 1}
TEXTS: JsonSchema = {"type": "array", "items": TEXT}


@click.command()
@click.argument("kind", type=click.Choice(KINDS))
def schema(kind: str) -> int:
    """JSON Schema of a request (answers file), of `recommend`'s JSON, or of `estimate`'s."""
    build = {"request": request_schema, "advice": advice_schema, "estimate": estimate_schema}[kind]
    click.echo(json.dumps(build(), indent=2))
    return 0


def request_schema() -> JsonSchema:
    """Derived from the field table; `origins` may stand in a request that was resolved before."""
    from advisor.request import Request

    found = Request.model_json_schema()
    for field in found["properties"].values():
        for key in ("group", "question", "flag", "title"):
            field.pop(key, None)
    found["properties"]["origins"] = {
        "type": "object",
        "description": "Where each default came from; ignored when read",
        "additionalProperties": TEXT,
    }
    return {"$schema": DRAFT, **found, "title": "Request"}


def advice_schema() -> JsonSchema:
    """What `recommend --output json` prints."""
    keys = {
        "request": _request(),
        "model": _model(),
        "cluster": _cluster(),
        "ranking": _array(_ranked()),
        "rejected": _array(_rejected()),
        "alternatives": _array(_alternative()),
        "warnings": TEXTS,
        "versions": _versions(),
    }
    reverse = {"minimize": _reverse(), "what_fits": _reverse(), "pareto": _array(_point())}
    return {"$schema": DRAFT, "title": "Advice", **_object(keys, reverse)}


def estimate_schema() -> JsonSchema:
    """What `estimate --output json` prints."""
    keys = {
        "request": _request(),
        "model": _model(),
        "plan": _plan(),
        "parameters": _counts("total", "active", "trainable"),
        "memory": _memory(),
        "time": _time(),
        "versions": _versions(),
    }
    return {"$schema": DRAFT, "title": "Estimate", **_object(keys, {"trace": _trace()})}


# --- pieces ---------------------------------------------------------------------------------------


def _object(keys: Mapping[str, JsonSchema], optional: Mapping[str, JsonSchema] | None = None) -> JsonSchema:
    """All of `keys` are required; further keys may come with later versions."""
    properties = {**keys, **(optional or {})}
    return {"type": "object", "properties": properties, "required": list(keys)}


def _array(items: JsonSchema) -> JsonSchema:
    return {"type": "array", "items": items}


def _or_null(kind: JsonSchema) -> JsonSchema:
    return {"anyOf": [kind, {"type": "null"}]}


def _counts(*names: str) -> JsonSchema:
    return _object({name: {"type": "integer", "minimum": 0} for name in names})


def _request() -> JsonSchema:
    return _object(
        {"model": TEXT, "gpu": TEXT},
        {"origins": {"type": "object", "additionalProperties": TEXT}},
    )


def _versions() -> JsonSchema:
    return {**_object({"advisor": TEXT}), "additionalProperties": TEXT}


def _model() -> JsonSchema:
    keys: dict[str, JsonSchema] = {
        "id": TEXT,
        "model_type": TEXT,
        "architecture": TEXT,
        "parameters": _counts("total", "active"),
        "layers": COUNT,
        "hidden": COUNT,
        "moe": _or_null(_counts("experts", "experts_per_token")),
        "mla": {"type": "boolean"},
        "vision": {"type": "boolean"},
        "max_positions": WHOLE,
        "native_dtype": TEXT,
        "source": TEXT,
    }
    return _object(keys)


def _cluster() -> JsonSchema:
    keys: dict[str, JsonSchema] = {
        "gpu": TEXT,
        "gpus_per_node": COUNT,
        "nodes": COUNT,
        "world_size": COUNT,
        "gpu_memory_gib": NUMBER,
        "cpu_memory_gib": NUMBER,
        "interconnect": TEXT,
        "usd_per_gpu_hour": _or_null(NUMBER),
        "price_source": _or_null(TEXT),
    }
    return _object(keys)


def _plan() -> JsonSchema:
    degrees = (
        "world_size",
        "data_parallel",
        "tensor_parallel",
        "pipeline_parallel",
        "expert_parallel",
        "context_parallel",
        "fsdp_replicas",
        "micro_batch_size",
        "gradient_accumulation_steps",
        "seq_len",
        "global_batch_size",
        "nodes",
        "gpus_per_node",
    )
    keys: dict[str, JsonSchema] = {
        "method": TEXT,
        "tuning": TEXT,
        "quantization": TEXT,
        "precision": TEXT,
        **dict.fromkeys(degrees, COUNT),
        "zero_stage": {"type": "integer", "minimum": 0, "maximum": 3},
        "fsdp": {"type": "boolean"},
        "offload": TEXT,
        "gradient_checkpointing": {"type": "boolean"},
        "backend": {"enum": list(BACKENDS)},
        "optimizer": TEXT,
        "learning_rate": NUMBER,
        "lora_targets": TEXTS,
    }
    return _object(keys)


def _memory() -> JsonSchema:
    figures = (*TERMS, "overhead", "allocated", "total", "low", "high")
    keys: dict[str, JsonSchema] = {
        "per_gpu_gib": _object(dict.fromkeys(figures, NUMBER)),
        "moment": TEXT,
        "host_gib": NUMBER,
        "host_parts_gib": _object(dict.fromkeys(HOST_PARTS, NUMBER)),
        "nvme_gib": NUMBER,
        "checkpoint_gib": NUMBER,
        "checkpoint_parts_gib": _object(dict.fromkeys(CHECKPOINT_PARTS, NUMBER)),
        "model_gib": NUMBER,
        "capacity_gib": NUMBER,
        "fits": {"enum": ["fits", "tight", "no"]},
    }
    stage = _object(dict.fromkeys(("state", *figures), NUMBER))
    cause: dict[str, JsonSchema] = dict.fromkeys(("name", "what", "source"), TEXT)
    cause |= dict.fromkeys(("likely_gib", "low_gib", "high_gib"), NUMBER)
    cause["tag"] = {"enum": ["measured", "derived", "assumed"]}
    pool = _object(dict.fromkeys(("needed", "capacity"), NUMBER))
    return _object(
        keys,
        {
            "generating_gpu_gib": pool,
            "stages": _array(stage),
            "notes": TEXTS,
            "causes": _array(_object(cause)),
        },
    )


def _trace() -> JsonSchema:
    """A traced training step, with `--trace`; `moments` has the peak of each."""
    keys: dict[str, JsonSchema] = {
        "per_gpu_gib": _object(dict.fromkeys((*TRACED_TERMS, "allocated"), NUMBER)),
        "moment": TEXT,
        "moments": _object({}),
        "versions": _object({}),
        "seconds": NUMBER,
    }
    return _object(keys)


def _time() -> JsonSchema:
    """Numbers that are not known are null, and `reason` says why."""
    figures = ("tokens_per_second", "hours", "gpu_hours", "cost", "low", "high")
    more = {
        "seconds_per_step": NUMBER,
        "parts": {"type": "object", "additionalProperties": NUMBER},
        "causes": TEXTS,
        "reason": TEXT,
    }
    known = _object(dict.fromkeys(figures, _or_null(NUMBER)), more)
    return {"anyOf": [known, _object({"reason": TEXT}), {"type": "null"}]}


def _reason() -> JsonSchema:
    return _object({"rule": TEXT, "effect": TEXT, "because": TEXT, "source": TEXT})


def _ranked() -> JsonSchema:
    run = {"run": TEXT, "processes": INTEGER, "seconds": INTEGER, "left_out": TEXT, "cases": INTEGER}
    proof = _or_null(_object({"version": TEXT, "date": TEXT, "stale": {"type": "boolean"}}, run))
    differs = {"type": "object", "additionalProperties": _object({"plan": TEXT, "run": TEXT})}
    nearest = _object({"kind": TEXT, "version": TEXT, "date": TEXT, "differs": differs}, run)
    keys: dict[str, JsonSchema] = {
        "framework": TEXT,
        "version": TEXT,
        "score": NUMBER,
        "plan": _plan(),
        "parameters": _counts("total", "active", "trainable"),
        "memory": _memory(),
        "time": _time(),
        "reasons": _array(_reason()),
        "evidence": _object(
            dict.fromkeys(("parsed", "ran_cpu", "ran_gpu"), proof),
            {"schema": {"anyOf": [proof, _object({"version": TEXT, "note": TEXT})]}, "nearest": nearest},
        ),
        "warnings": TEXTS,
    }
    return _object(keys, {"unseated_by": TEXTS})


def _point() -> JsonSchema:
    """One way to do it in `pareto`, fastest first."""
    where = {"gpu": TEXT, "nodes": COUNT, "gpus_per_node": COUNT}
    keys = {
        **where, "framework": TEXT, "plan": TEXT, "gib_per_gpu": NUMBER, "hours": NUMBER, "cost": NUMBER,
        "price_source": TEXT, "dominated_by": _or_null(_object(where)),
    }  # fmt: skip
    return _object(keys)


def _reverse() -> JsonSchema:
    """The answer to --minimize or --what-fits, and the requests tried for it."""
    rung = _object(
        {"feasible": {"type": "boolean"}},
        {
            "nodes": COUNT,
            "gpus_per_node": COUNT,
            "seq_len": COUNT,
            "response_len": COUNT,
            "model": TEXT,
            "framework": TEXT,
            "gib_per_gpu": NUMBER,
            "hours": _or_null(NUMBER),
            "cost": _or_null(NUMBER),
        },
    )
    return _object({"what": TEXT, "chosen": _or_null(_object({})), "tried": _array(rung)})


def _rejected() -> JsonSchema:
    return _object({"framework": TEXT, "version": TEXT, "reasons": _array(_reason()), "flips": TEXTS})


def _alternative() -> JsonSchema:
    return _object({"change": TEXT, "request": _request(), "framework": TEXT, "memory": _memory()})
