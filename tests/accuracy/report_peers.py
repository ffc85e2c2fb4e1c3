"""docs/accuracy.md: five questions, our answers beside those of other estimators."""

from __future__ import annotations

from tests.accuracy.peers import CASES, STATES, answers, ours

INTRO = """The same five questions put to every tool that could be made to run. "One device": it answers, but for a
model that is not spread over the GPUs. All in GiB per GPU."""

READING = """Plain LoRA (b, c) differs by a factor 1.5 to 2 between them: the fp32 logits and loss are 0 to 7 GiB, fixed
overheads 1 to 10. Ours names each term: `advisor estimate --verbose`. For experts over many GPUs (d, e) only SimuMax,
ISEEKYAN's estimator and Megatron's formula place parameters per GPU; where they split the state out, so do we:"""


def _own(case: str) -> str:
    memory = ours(case)
    text = f"**{memory.total:.1f}** ({memory.low:.1f} to {memory.high:.1f}; allocated {memory.allocated:.1f})"
    return text + f", host {memory.host_gib:.0f} a node"


def _states() -> list[str]:
    out = ["| case, stage | ours | SimuMax | ISEEKYAN | largest difference |", "|---|---:|---:|---:|---:|"]
    for row in STATES:
        state = ours(row.case).stages[row.stage]["state"]
        off = max(abs(state / row.simumax - 1), abs(state / row.iseekyan - 1))
        place = {0: "first", -1: "last"}.get(row.stage, "middle")
        out.append(
            f"| {row.case}, {place} | {state:.2f} | {row.simumax:.2f} | {row.iseekyan:.2f} | {100 * off:.2f} % |"
        )
    return out


def lines() -> list[str]:
    names = list(CASES)
    return [
        "## Beside other estimators",
        "",
        INTRO,
        "",
        *(f"- {name}: {CASES[name][0]}" for name in names),
        "",
        f"| tool | {' | '.join(names)} | how it was asked |",
        f"|---|{'---|' * len(names)}---|",
        f"| **advisor** | {' | '.join(_own(name) for name in names)} | `advisor estimate`, no framework |",
        *(
            f"| {row['peer']} | {' | '.join(row[name] for name in names)} | {row['source']} |"
            for row in answers()
        ),
        "",
        READING,
        "",
        *_states(),
    ]


if __name__ == "__main__":
    print("\n".join(lines()))
