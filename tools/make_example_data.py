"""Writes examples/data/rl.jsonl: reasoning prompts with a checkable solution.

    python -m pip install reasoning-gym==0.1.25
    python tools/make_example_data.py

The same version and seeds give the same file. The other files of examples/data are written by hand.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import reasoning_gym  # pyright: ignore[reportMissingImports, reportMissingTypeStubs]

TARGET = Path(__file__).parents[1] / "examples" / "data" / "rl.jsonl"
WANTED_PER_FAMILY = 34
DRAWN_PER_FAMILY = 600
MAX_PROMPT_CHARS = 1200
NEAR_DUPLICATE = 0.4
"""Rows above this share of common word 5-grams are left out; the test of the data allows 0.6."""

WRONG_WAY_ROUND = "in-law"
"""family_relationships 0.1.25 gives relations by marriage the wrong way round (father-in-law for the son)."""

LEAP_YEAR_UNSAID = ("first day of the year", "In a year where")
"""calendar_arithmetic questions whose answer depends on whether the year is a leap year."""

FAMILIES: dict[str, dict[str, Any]] = {
    "family_relationships": {"seed": 102},
    "letter_counting": {"seed": 104},
    "leg_counting": {"seed": 106},
    "chain_sum": {"seed": 107, "min_terms": 3, "max_terms": 6},
    "basic_arithmetic": {"seed": 108, "min_terms": 4, "max_terms": 7},
    "gcd": {"seed": 109},
    "calendar_arithmetic": {"seed": 111},
    "simple_equations": {"seed": 113},
    "products": {"seed": 115},
    "count_primes": {"seed": 123, "max_n": 400},
}


def grams(text: str) -> set[tuple[str, ...]]:
    """Word 5-grams of the text; all of it when it is shorter."""
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[at : at + 5]) for at in range(max(1, len(words) - 4))}


def overlap(first: set[tuple[str, ...]], second: set[tuple[str, ...]]) -> float:
    return len(first & second) / len(first | second)


def sound(question: str, answer: str) -> bool:
    """Whether the solution is right and the only one."""
    return WRONG_WAY_ROUND not in answer and not any(words in question for words in LEAP_YEAR_UNSAID)


def main() -> None:
    rows: list[dict[str, Any]] = []
    seen: list[set[tuple[str, ...]]] = []
    for family, options in FAMILIES.items():
        kept = 0
        drawn: Any = reasoning_gym.create_dataset(family, size=DRAWN_PER_FAMILY, **options)
        for number, item in enumerate(drawn):
            question, answer = item["question"].strip(), str(item["answer"]).strip()
            mine = grams(f"{question} {answer}")
            fits = answer and len(question) <= MAX_PROMPT_CHARS and sound(question, answer)
            if not fits or any(overlap(mine, other) > NEAR_DUPLICATE for other in seen):
                continue
            seen.append(mine)
            prompt = [{"role": "user", "content": question}]
            source = f"reasoning_gym/{family}"
            origin = {"source": source, "seed": options["seed"], "index": number}
            rows.append({"prompt": prompt, "solution": answer, **origin})
            kept += 1
            if kept == WANTED_PER_FAMILY:
                break
        print(f"{family}: {kept}")
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    TARGET.write_text("".join(lines), encoding="utf-8")
    print(f"{len(rows)} rows in {TARGET}")


if __name__ == "__main__":
    main()
