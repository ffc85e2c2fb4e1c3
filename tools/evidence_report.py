"""Write docs/evidence.md anew: what was proven, with which versions, and which claims have no proof.

python tools/evidence_report.py            writes the page
python tools/evidence_report.py --claims   prints the claims that outlive their evidence; exit 1 when there are any
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from advisor.rules import Capability, FrameworkRules
    from advisor.rules.evidence import Proof

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "evidence.md"
RUNS = ROOT / "tests" / "conformance" / "runs.yaml"
CLAIMED = ("parsed", "ran_cpu", "ran_gpu")
HEAD = """# What was proven

Written by `python tools/evidence_report.py`; a test fails when this page is stale. The rows stand in
`rules/evidence/`, one a line: the kind of plan (its cell), what was done with it, the versions, the date, and a
digest of the keys and enumerated values of its configuration (no rates, lengths, ids or paths).

- **ran on a CPU**: `smoke.sh` of a starter repo trained three steps of a tiny random model of the same architecture
  with the real framework; the loss was finite and moved; the saved file holds what the plan trains and nothing else.
- **parsed**: the framework's own parser and the strict layer above it accepted the files of a starter repo.
- **stale**: today's digest of that cell is another one. The row is still true of the values it was made with.
- A **claim** is a row of `rules/frameworks/` that names a kind of proof. It *outlives its evidence* when no row here
  of that kind, of the release the rules are written for, and not stale, is about a plan the claim covers: then
  `make conformance` is red, as it is when one of its runs fails. A claim whose evidence is a source, a document or an
  issue alone is shown as such: nothing was run for it.
"""


@dataclass(frozen=True)
class Claim:
    """A row of the rules that says some kind of proof exists."""

    row: Capability
    kind: str
    proofs: tuple[Proof, ...]
    """Of this kind, about plans of the row, of the current release and not stale."""


def is_stale(proof: Proof, rules: FrameworkRules) -> bool:
    from advisor.facts.models import load_model
    from advisor.judging import digest_of

    return digest_of(rules, proof.as_plan(), load_model(proof.model)) not in proof.digests


def claims(rules: FrameworkRules, proofs: Sequence[Proof]) -> Iterator[Claim]:
    """Every claim of the framework's rules, with the current proofs of it."""
    from advisor.rules.capabilities import fits

    current = [p for p in proofs if p.version == rules.version and not is_stale(p, rules)]
    for row in rules.capabilities:
        if not row.value:
            continue
        for kind in dict.fromkeys(evidence.kind for evidence in row.evidence):
            if kind in CLAIMED:
                about = [p for p in current if p.kind == kind and fits(row.match, p.as_plan())]
                yield Claim(row, kind, tuple(about))


def outlived(rules: FrameworkRules, proofs: Sequence[Proof]) -> list[str]:
    """Claims without evidence, one line each."""
    return [
        f"{claim.row.id} claims {claim.kind}: no such row of {rules.version} is current in rules/evidence/"
        for claim in claims(rules, proofs)
        if not claim.proofs
    ]


def page() -> str:
    import yaml

    from advisor.rules import framework_names, load_framework
    from advisor.rules.evidence import load_proofs

    listed = yaml.safe_load(RUNS.read_text("utf-8"))
    parts = [HEAD]
    for name in framework_names():
        parts.append(section(load_framework(name), load_proofs(name), listed[name]))
    return "\n".join(parts)


def section(rules: FrameworkRules, proofs: Sequence[Proof], listed: Mapping[str, Any]) -> str:
    ran = [proof for proof in proofs if proof.kind in ("ran_cpu", "ran_gpu")]
    parsed = [proof for proof in proofs if proof.kind == "parsed"]
    lines = [f"## {rules.title} {rules.version}", "", "### Trained", "", *runs_table(rules, ran)]
    lines += ["", *not_run(listed, {proof.run for proof in ran}), "### Accepted by its parser", ""]
    lines += [*parsed_table(parsed), "", "### Claims of the rules", "", *claims_table(rules, proofs)]
    return "\n".join(lines) + "\n"


def runs_table(rules: FrameworkRules, ran: Sequence[Proof]) -> list[str]:
    if not ran:
        return ["Nothing was recorded."]
    rows = [
        "| run | plan | processes | seconds | date, versions | the checkpoint |",
        "|---|---|---|---|---|---|",
    ]
    for proof in ran:
        left_out = f"; left out of the plan asked for: {proof.left_out}" if proof.left_out else ""
        stale = " **stale**" if is_stale(proof, rules) or proof.version != rules.version else ""
        versions = ", ".join(f"{package} {version}" for package, version in proof.versions.items())
        rows.append(
            f"| `{proof.run}`{stale} | {described(proof)}{left_out} | {proof.processes} | {proof.seconds} | "
            f"{proof.date}: {versions} | {proof.found} |"
        )
    return rows


def described(proof: Proof) -> str:
    """The cell in words, what is usual left out."""
    usual = {"quantization": "none", "adapters": "none", "backend": "hf", "sharding": "none", "offload": "none",
             "rollout": "none"}  # fmt: skip
    words = {"rollout": "rollout by", "offload": "offload of", "adapters": "adapters on"}
    cell = {name: value for name, value in proof.cell.as_dict().items() if usual.get(name) != value}
    return ", ".join(f"{words[name]} {value}" if name in words else value for name, value in cell.items())


def not_run(listed: Mapping[str, Any], ran: set[str]) -> list[str]:
    """What the list names and no row proves: what no CPU can run, and what was not recorded."""
    lines: list[str] = []
    for name, row in listed.items():
        if row.get("outcome") == "cannot":
            lines.append(f"- `{name}`: no CPU can run it: `{row['line']}`")
        elif name not in ran:
            lines.append(f"- `{name}`: on the list, not recorded")
    return [*lines, ""] if lines else []


def parsed_table(parsed: Sequence[Proof]) -> list[str]:
    if not parsed:
        return ["Nothing was recorded."]
    cases = Counter[tuple[str, str]]()
    cells = Counter[tuple[str, str]]()
    for proof in parsed:
        key = (proof.cell.method, proof.cell.tuning)
        cases[key] += proof.cases
        cells[key] += 1
    total = f"{sum(cases.values())} configurations of {sum(cells.values())} kinds of plan."
    rows = [total, "", "| method | tuning | kinds of plan | configurations |", "|---|---|---|---|"]
    return rows + [f"| {m} | {t} | {cells[m, t]} | {cases[m, t]} |" for m, t in sorted(cells)]


def claims_table(rules: FrameworkRules, proofs: Sequence[Proof]) -> list[str]:
    proven = {(claim.row.id, claim.kind): claim.proofs for claim in claims(rules, proofs)}
    rows = ["| capability | parsed | ran on a CPU | ran on a GPU |", "|---|---|---|---|"]
    for row in rules.capabilities:
        if row.value:
            shown = [state(row, kind, proven.get((row.id, kind))) for kind in CLAIMED]
            rows.append(f"| {row.title or row.id} (`{row.id}`) | {' | '.join(shown)} |")
    return rows


def state(row: Capability, kind: str, proofs: Sequence[Proof] | None) -> str:
    """What stands behind one claim; for a run, the methods of the row that nobody ran."""
    if proofs is None:
        return "not claimed"
    if not proofs:
        return "**claimed, no current evidence**"
    methods = dict.fromkeys(proof.cell.method for proof in proofs)
    open_methods = [method for method in row.match.get("method", ()) if method not in methods]
    return ", ".join(methods) + (f"; without evidence: {', '.join(open_methods)}" if open_methods else "")


def main() -> int:
    sys.path.insert(0, str(ROOT))
    if sys.argv[1:] == ["--claims"]:
        from advisor.rules import framework_names, load_framework
        from advisor.rules.evidence import load_proofs

        lines = [
            line for name in framework_names() for line in outlived(load_framework(name), load_proofs(name))
        ]
        print("\n".join(lines) or "every claim has its evidence")
        return 1 if lines else 0
    PAGE.write_text(page(), "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
