"""The section of docs/accuracy.md on where online RL generates."""

from __future__ import annotations

from tests.accuracy.placements import PLACEMENTS, rows

INTRO = """## Where online RL generates

verl published steps of one training with the engine on the GPUs that train and, one step ahead, on 4 of the 16 GPUs
(`tests/accuracy/placements.py` has the source, and how the unpublished length of the answers was set); the middle column
is what its parts would take one after the other. Seconds of a step, published / ours:"""

CLOSING = """Both put them in the order {order}: a server that training waits for loses to a colocated
engine, one that works ahead beats it. (The colocated runs sampled up to three times the prompts, which ours does not
know.) Hugging Face's comparison says the same of TRL: colocated against a server on one of eight GPUs was up to 1.43
times as fast at 1.5B and 1.35 at 7B, its server's figure already scaled by 8/7, and 1.26 times at 72B with 4 GPUs fewer
(huggingface/blog@141a09d vllm-colocate.md; lengths and batches are in pictures). So the search chooses a server only
where memory forces training beside an engine into recomputation or offload: about one in twenty of 720 requests
tried (TRL and ms-swift, 8B to 70B on 2 to 16 cards of 24 to 80 GB)."""


def lines() -> list[str]:
    found = list(rows())
    orders = {row.order(seconds) for row in found for seconds in (row.published, row.ours)}
    (order,) = orders
    return [
        *INTRO.splitlines(), "", "| engine | " + " | ".join(PLACEMENTS) + " |", "|---|" + "---:|" * len(PLACEMENTS),
        *(
            f"| {row.engine} | "
            + " | ".join(f"{row.published[name]:.0f} / {row.ours[name]:.0f}" for name in PLACEMENTS) + " |"
            for row in found
        ),
        "", *CLOSING.format(order=", ".join(order)).splitlines(),
    ]  # fmt: skip
