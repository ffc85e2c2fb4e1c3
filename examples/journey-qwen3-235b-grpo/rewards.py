"""How an answer is scored. Change this file to what your task calls right.

Every framework's own wrapper calls `score` with the generated text, the row's `solution` and the row's
other columns, and takes a number: higher is better.
"""

import re
import unicodedata


def score(completion: str, solution: str, **columns: object) -> float:
    """1.0 when the final answer equals the solution, else 0.0."""
    return 1.0 if normalise(final_answer(completion)) == normalise(str(solution)) else 0.0


def final_answer(text: str) -> str:
    """What stands in the last \\boxed{...}, <answer>...</answer> or after the last `Answer:`, else the last line."""
    for pattern in (r"\\boxed\{([^{}]*)\}", r"<answer>(.*?)</answer>", r"(?i)answer\s*(?:is|:)\s*([^\n]+)"):
        found = re.findall(pattern, text, flags=re.DOTALL)
        if found:
            return found[-1]
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1] if lines else ""


def normalise(text: str) -> str:
    """Case, spacing, thousands separators and a trailing full stop do not make an answer wrong."""
    text = unicodedata.normalize("NFKC", text).casefold().strip().rstrip(".")
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    return re.sub(r"\s+", " ", text).strip(" $*`\"'")
