"""`advisor models`, `gpus`, `frameworks`, `rules`: the catalog, row by row, each with its source."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from advisor.cli.common import OUTPUTS, print_data
from advisor.errors import InputError
from advisor.paths import rules_root
from advisor.report.terminal import table

OUTPUT = click.option("--output", type=OUTPUTS, default="text", show_default=True, help="Form of the list.")


def _list(
    name: str, rows: Sequence[Mapping[str, Any]], output: str, columns: Mapping[str, str], foot: str = ""
) -> None:
    if output != "text":
        print_data({name: list(rows)}, output)
        return
    body = [[_cell(row.get(key)) for key in columns.values()] for row in rows]
    click.echo(table([list(columns), *body]))
    if foot:
        click.echo(f"\n{foot}")


def _show(row: Mapping[str, Any], output: str) -> None:
    if output != "text":
        print_data(row, output)
        return
    width = max(len(key) for key in row) + 2
    for key, value in row.items():
        click.echo(f"{key.replace('_', ' '):<{width}}{_cell(value)}")


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if value >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:,.2f}".rstrip("0").rstrip(".")
    if isinstance(value, (list, tuple)):
        return ", ".join(_cell(item) for item in value) or "-"
    if isinstance(value, dict):
        return "; ".join(f"{key} {_cell(inner)}" for key, inner in value.items()) or "-"
    return str(value)


# --- models ---------------------------------------------------------------------------------------


@click.command()
@click.argument("model_id", metavar="[ID]", required=False)
@OUTPUT
def models(model_id: str | None, output: str) -> int:
    """The models of the catalog, or one of them (a hub id, a folder, a config.json) with its dimensions."""
    if model_id:
        _show(_model(model_id), output)
        return 0
    from advisor.facts.models import model_summaries

    rows = [dict(row) for row in model_summaries()]
    columns = {
        "id": "id",
        "parameters": "total",
        "active": "active",
        "context": "context",
        "weights": "native_dtype",
        "type": "model_type",
    }
    _list("models", rows, output, columns, f"{len(rows)} models; one of them: advisor models ID")
    return 0


def _model(reference: str) -> dict[str, Any]:
    from advisor.facts.models import load_model

    facts = load_model(reference)
    moe = facts.moe
    return {
        "id": facts.id,
        "model_type": facts.model_type,
        "architecture": facts.architecture,
        "total_parameters": facts.total_parameters,
        "active_parameters": facts.active_parameters,
        "layers": facts.layers,
        "hidden": facts.hidden,
        "heads": facts.heads,
        "kv_heads": facts.kv_heads,
        "head_dim": facts.head_dim,
        "ffn": facts.ffn,
        "vocab": facts.vocab,
        "max_positions": facts.max_positions,
        "tied_embeddings": facts.tied_embeddings,
        "moe": None
        if moe is None
        else {
            "experts": moe.experts,
            "experts_per_token": moe.experts_per_token,
            "expert_ffn": moe.expert_ffn,
            "shared_ffn": moe.shared_ffn,
            "moe_layers": moe.moe_layers,
        },
        "mla": facts.mla,
        "vision": facts.vision,
        "native_dtype": facts.native_dtype,
        "decoder_layer": facts.decoder_layer,
        "note": facts.context_note,
        "source": facts.source,
    }


# --- gpus -----------------------------------------------------------------------------------------


@click.command()
@click.argument("gpu_name", metavar="[ID]", required=False)
@OUTPUT
def gpus(gpu_name: str | None, output: str) -> int:
    """The GPUs of the catalog, or one of them by id or alias."""
    if gpu_name:
        _show(_gpu(gpu_name), output)
        return 0
    from advisor.facts.gpus import gpu_summaries

    rows = [dict(row) for row in gpu_summaries()]
    columns = {
        "id": "id",
        "name": "name",
        "GiB": "memory_gib",
        "GB/s": "bandwidth_gb_s",
        "TFLOP/s bf16": "tflops_bf16",
        "a node": "gpus_per_node",
        "USD/h": "usd_per_gpu_hour",
    }
    foot = f"{len(rows)} GPUs; GiB is what is usable; one of them: advisor gpus ID"
    _list("gpus", rows, output, columns, foot)
    return 0


def _gpu(name: str) -> dict[str, Any]:
    from advisor.facts.gpus import load_gpu

    facts = load_gpu(name)
    catalog = json.loads((rules_root() / "catalog" / "gpus.json").read_bytes())
    row = next(row for row in catalog["accelerators"] if row["id"] == facts.id)
    return {
        "id": facts.id,
        "name": facts.name,
        "vendor": facts.vendor,
        "aliases": row["aliases"],
        "compute_capability": facts.compute_capability,
        "memory_gib": facts.memory_gib,
        "memory_source": facts.memory_source,
        "bandwidth_gb_s": facts.bandwidth_gb_s,
        "tflops_bf16": facts.tflops_bf16,
        "supports_bf16": facts.supports_bf16,
        "supports_fp8": facts.supports_fp8,
        "supports_flash2": facts.supports_flash2,
        "link_gb_s": facts.link_gb_s,
        "nvlink": facts.nvlink,
        "gpus_per_node": facts.gpus_per_node,
        "usd_per_gpu_hour": facts.usd_per_gpu_hour,
        "price_source": facts.price_source,
        "source": row["source"],
    }


# --- frameworks -----------------------------------------------------------------------------------


@click.command()
@click.argument("name", metavar="[NAME]", required=False)
@click.option(
    "--keys", is_flag=True, help="The keys that are written for NAME, each with the releases it exists in."
)
@OUTPUT
def frameworks(name: str | None, keys: bool, output: str) -> int:
    """The six frameworks, or what one of them can and cannot do, each row with its evidence."""
    from advisor.rules import framework_names, load_framework

    if keys and not name:
        raise InputError("framework", f"--keys needs a name; there are {', '.join(framework_names())}")
    if name:
        if name not in framework_names():
            raise InputError("framework", f"{name!r} is not known; there are {', '.join(framework_names())}")
        if keys:
            _show_keys(name, output)
            return 0
        _show_framework(_framework(name), output)
        return 0
    rows: list[dict[str, Any]] = []
    for known in framework_names():
        rules = load_framework(known)
        rows.append(
            {
                "framework": known,
                "title": rules.title,
                "version": rules.version,
                "role": rules.role,
                "methods": _methods(known),
                "docs": rules.docs,
            }
        )
    columns = {"framework": "framework", "version": "version", "role": "role"}
    _list("frameworks", rows, output, columns, "One of them: advisor frameworks NAME")
    return 0


def _show_keys(name: str, output: str) -> None:
    from advisor import schemas
    from advisor.drift import emitted_keys

    known, found = schemas.versions(name), emitted_keys(name)
    if output != "text":
        rows = [key.as_dict() for key in found]
        print_data({"framework": name, "releases": list(known), "keys": rows}, output)
        return
    body = [[key.key, key.document, key.since(known), "; ".join(key.changes) or "-"] for key in found]
    click.echo(table([["key", "document", "in", "changed"], *body]))
    click.echo(f"\n{len(found)} keys; releases read: {', '.join(known)}")


def _methods(name: str) -> list[str]:
    """Methods that some row allows, in the order of the plan's table."""
    from advisor.plan import METHODS
    from advisor.rules import load_framework

    rows = load_framework(name).capabilities
    can = {method for row in rows if row.value for method in row.match.get("method", METHODS)}
    return [method for method in METHODS if method in can]


def _framework(name: str) -> dict[str, Any]:
    from advisor import schemas
    from advisor.rules import load_framework

    rules = load_framework(name)
    return {
        "framework": rules.framework,
        "title": rules.title,
        "role": rules.role,
        "docs": rules.docs,
        "distribution": rules.distribution,
        "releases": [{"version": r.version, "python": r.python} for r in rules.releases],
        "by_schema": [version for version in schemas.versions(name) if version != rules.version],
        "methods": _methods(name),
        "rows": [row_dict(name, row) for row in rules.rows],
    }


def _show_framework(shown: Mapping[str, Any], output: str) -> None:
    if output != "text":
        print_data(shown, output)
        return
    releases = ", ".join(f"{r['version']} (Python {r['python']})" for r in shown["releases"])
    click.echo(f"{shown['title']} ({shown['framework']}): {shown['role']}")
    click.echo(f"Releases  {releases}; by their keys alone: {', '.join(shown['by_schema'])}")
    click.echo(f"Docs      {shown['docs'] or '-'}\nMethods   {', '.join(shown['methods'])}\n")
    body = [[row["id"], row["about"], row["title"] or row["because"][:70]] for row in shown["rows"]]
    click.echo(table([["id", "row", "what"], *body]))
    click.echo("\nOne row, with its evidence: advisor rules ID")


# --- rules ----------------------------------------------------------------------------------------


@click.command()
@click.argument("rule_id", metavar="[ID]", required=False)
@click.option("--for", "answers", metavar="ANSWERS", help="What each rule says of the request in this file.")
@OUTPUT
def rules(rule_id: str | None, answers: str | None, output: str) -> int:
    """The rules of the selection policy, or one rule or framework row by id.

    With --for: each rule's verdict for that request and each framework's plan, and the framework's own limits;
    an ID then keeps that one rule or limit.
    """
    from advisor.rules import load_policy

    if answers:
        from advisor.cli.trace import show_trace

        return show_trace(answers, rule_id, output)
    if rule_id:
        row = policy_row(rule_id) or framework_row(rule_id)
        if row is None:
            raise unknown_rule(rule_id)
        _show(row, output)
        return 0
    rows = [policy_row(rule.id) or {} for rule in load_policy().rules]
    columns = {"id": "id", "effect": "effect", "weight": "weight", "title": "title"}
    foot = "One rule: advisor rules ID; what a framework can do: advisor frameworks NAME"
    _list("rules", rows, output, columns, foot)
    return 0


def policy_row(rule_id: str) -> dict[str, Any] | None:
    """One rule of the shipped policy."""
    from advisor.rules import load_policy

    for rule in load_policy().rules:
        if rule.id == rule_id:
            return {
                "id": rule.id,
                "title": rule.title,
                "when": rule.when,
                "effect": rule.effect,
                "weight": rule.weight,
                "because": rule.because,
                "source": rule.source,
                "file": rule.file,
            }
    return None


def _framework_rows() -> Iterator[tuple[str, Any]]:
    from advisor.rules import framework_names, load_framework

    for name in framework_names():
        for row in load_framework(name).rows:
            yield name, row


def framework_row(row_id: str) -> dict[str, Any] | None:
    """One row of a framework's rules, whatever its kind."""
    pinned = next((row_dict(name, row) for name, row in _framework_rows() if row.id == row_id), None)
    return pinned or _row_of_a_release(row_id)


def _row_of_a_release(row_id: str) -> dict[str, Any] | None:
    """A row that holds for other releases than the pinned one."""
    from advisor import schemas
    from advisor.rules import load_framework

    name = row_id.partition(".")[0]
    for version in schemas.versions(name):
        for row in load_framework(name, version=version).rows:
            if row.id == row_id:
                return row_dict(name, row)
    return None


def row_dict(framework: str, row: Any) -> dict[str, Any]:
    """A capability, restriction, limit, habit or trap as plain data."""
    from advisor.rules import Capability

    shown: dict[str, Any] = {"id": row.id, "framework": framework, "about": _about(row), "title": row.title}
    if isinstance(row, Capability):
        shown["supported"] = row.value
    for key in ("field", "values", "when", "set", "note", "since", "until"):
        value = getattr(row, key, None)
        if value:
            shown[key] = _plain(value)
    if hasattr(row, "match"):
        shown["match"] = _plain(row.match)
    shown["because"] = str(getattr(row, "because", "") or getattr(row, "text", ""))
    shown["source"] = [f"{e.ref} ({e.kind}, {e.checked})" for e in row.evidence]
    return shown


def _about(row: Any) -> str:
    from advisor.rules import Capability

    if isinstance(row, Capability):
        return "can" if row.value else "cannot"
    return type(row).__name__.lower()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (tuple, list)) else value


def row_ids() -> list[str]:
    """Ids of every rule and framework row."""
    from advisor.rules import load_policy

    return [rule.id for rule in load_policy().rules] + [row.id for _, row in _framework_rows()]


def unknown_rule(rule_id: str) -> InputError:
    return InputError("rule", f"{rule_id!r} is not known{_close(rule_id)}")


def _close(rule_id: str) -> str:
    import difflib

    close = difflib.get_close_matches(rule_id, row_ids(), n=4, cutoff=0.5)
    return f"; close: {', '.join(close)}" if close else "; advisor rules lists them"
