"""Read the losses of a finished run and say whether it trained.

    python smoke/loss.py smoke/out --steps 3 --seconds 41

The first argument is a log file or a folder. In a folder the newest trainer_state.json counts; without
one, the newest .jsonl and then the newest .log or .txt that holds losses. A log may be JSON lines or plain
text; `'loss': 1.23`, `loss: 1.23`, `train/loss:1.23`, `step:2 - actor/pg_loss:0.1` are all understood.

    --steps N        how many steps the run was asked for (never more are counted)
    --seconds S      how long it took, for the message
    --rl             the loss of a policy may be zero and constant (when all answers of a group earn the
                     same reward): a finite loss and a finite reward or gradient norm are then enough
    --partial TEXT   not the plan itself was trained but its nearest path; TEXT says what was not run

The last line printed and the exit code:

    smoke: OK loss=6.0712->5.9921 steps=3 seconds=41     0: at least two steps, every loss finite, moving
    smoke: PARTIAL vLLM rollout                          6: as above, but only the nearest path trained
    smoke: FAILED the loss never changed (6.0712)        1
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

# `train_loss`, the average over the whole run, is not a step and so not among these.
LOSS_KEYS = ("loss", "train/loss", "train_loss_step", "lm_loss", "lm loss", "actor/pg_loss", "actor/loss",
             "policy_loss", "training/loss", "loss/policy_avg")  # fmt: skip
GRADIENT_KEYS = ("grad_norm", "train/grad_norm", "actor/grad_norm", "training/grad_norm")
REWARD_KEYS = (
    "reward",
    "rewards/mean",
    "train/reward",
    "critic/score/mean",
    "critic/rewards/mean",
    "objective/scores",
)
NUMBER = r"[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+|nan|inf(?:inity)?)"
WRAPPED = rf"(?:(?:np|numpy)\.float\d+\(|tensor\()?['\"]?({NUMBER})"
STEP_KEYS = ("step", "global_step", "iteration", "training/global_step")
ANSI = re.compile(r"\x1b\[[0-9;]*m")


class Step(NamedTuple):
    """What one logged step says."""

    loss: float
    gradient: float | None
    reward: float | None
    number: int | None


class NotReadable(Exception):
    """There are no losses to judge."""


def read_steps(path: Path) -> list[Step]:
    """The steps of a log, or of the best log in a folder."""
    if not path.exists():
        raise NotReadable(f"there is no {path}")
    for file in _candidates(path):
        steps = _steps_of(file)
        if steps:
            return steps
    raise NotReadable(f"no losses found in {path}")


def _candidates(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    found: list[Path] = []
    for patterns in (("trainer_state.json",), ("*.jsonl",), ("*.log", "*.txt", "stdout")):
        files = [file for pattern in patterns for file in path.rglob(pattern)]
        found += sorted(files, key=lambda file: (file.stat().st_mtime, _checkpoint(file)), reverse=True)
    return found


def _checkpoint(file: Path) -> int:
    """The step in `checkpoint-3`: files of one run may carry the same time."""
    match = re.search(r"(\d+)$", file.parent.name)
    return int(match[1]) if match else 0


def _steps_of(file: Path) -> list[Step]:
    text = ANSI.sub("", file.read_text(encoding="utf-8", errors="replace"))
    if file.suffix == ".json":
        data = json.loads(text)
        rows = data.get("log_history", []) if isinstance(data, dict) else data
        steps = [_from_row(row) for row in rows if isinstance(row, dict)]
    else:
        # Progress bars end their lines with a carriage return.
        steps = [_from_line(line) for line in re.split(r"[\r\n]+", text)]
    return _each_once([step for step in steps if step])


def _from_row(row: dict[str, Any]) -> Step | None:
    flat = {**row, **row["data"]} if isinstance(row.get("data"), dict) else row
    numbers = {str(key): number for key, value in flat.items() if (number := _number(value)) is not None}
    loss, gradient, reward, number = (
        next((numbers[key] for key in keys if key in numbers), None)
        for keys in (LOSS_KEYS, GRADIENT_KEYS, REWARD_KEYS, STEP_KEYS)
    )
    if loss is None:
        return None
    counted = number is not None and math.isfinite(number)
    return Step(loss, gradient, reward, int(number) if counted else None)


def _number(value: object) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return float(value)
    if isinstance(value, str) and re.fullmatch(NUMBER, value.strip(), re.IGNORECASE):
        return float(value)
    return None


def _from_line(line: str) -> Step | None:
    if line.lstrip().startswith("{"):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict):
            return _from_row(row)
    found = {key: _find(key, line) for key in (*LOSS_KEYS, *GRADIENT_KEYS, *REWARD_KEYS, *STEP_KEYS)}
    return _from_row({key: value for key, value in found.items() if value is not None})


def _find(key: str, line: str) -> str | None:
    # The key must stand alone: `eval_loss`, `train_loss` and `kl_loss` are other numbers. Only a colon
    # counts: progress bars write `loss=1.2`, again and again for the same step.
    pattern = rf"(?<![\w/.-])['\"]?{re.escape(key)}['\"]?\s*:\s*{WRAPPED}"
    match = re.search(pattern, line, re.IGNORECASE)
    return match[1] if match else None


def _each_once(steps: list[Step]) -> list[Step]:
    """A log may show the same step twice: once by the bar, once by the logger."""
    seen: set[int] = set()
    kept: list[Step] = []
    for step in steps:
        if step.number is None or step.number not in seen:
            kept.append(step)
        if step.number is not None:
            seen.add(step.number)
    return kept


def problem(steps: list[Step], rl: bool) -> str | None:
    """Why these steps do not show a trained model; None when they do."""
    losses = [step.loss for step in steps]
    bad = next((number for number, loss in enumerate(losses, 1) if not math.isfinite(loss)), None)
    if bad is not None:
        return f"the loss of step {bad} is {losses[bad - 1]}"
    if len(losses) < 2:
        return f"only {len(losses)} step was logged, at least 2 are needed"
    gradients = [step.gradient for step in steps if step.gradient is not None]
    # Trainers of the transformers library log a loss that is not a number as 0; its gradient tells.
    if not all(math.isfinite(gradient) for gradient in gradients):
        return "a gradient norm is not finite"
    if rl:
        rewards = [step.reward for step in steps if step.reward is not None and math.isfinite(step.reward)]
        return None if rewards or gradients else "no finite reward or gradient norm was logged"
    if len(set(losses)) == 1:
        return f"the loss never changed ({losses[0]:.4f})"
    return None


def _move(first: float, last: float) -> str:
    """Both to four digits, or to as many as it takes to see that they differ: preference losses start slowly."""
    digits = next((n for n in range(4, 9) if f"{first:.{n}f}" != f"{last:.{n}f}"), 4)
    return f"{first:.{digits}f}->{last:.{digits}f}"


def verdict(args: argparse.Namespace) -> tuple[str, int]:
    """The line to print and the exit code."""
    try:
        steps = read_steps(Path(args.log))[: args.steps or None]
    except (NotReadable, OSError, ValueError) as error:
        return f"smoke: FAILED {error}", 1
    why = problem(steps, args.rl)
    if why:
        return f"smoke: FAILED {why}", 1
    if args.partial:
        return f"smoke: PARTIAL {args.partial}", 6
    moved = _move(steps[0].loss, steps[-1].loss)
    return f"smoke: OK loss={moved} steps={len(steps)} seconds={args.seconds:g}", 0


def main(argv: list[str] | None = None) -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(description="Say whether a finished run trained.")
    parser.add_argument("log", help="log file or folder")
    parser.add_argument("--steps", type=int, required=True, help="steps the run was asked for")
    parser.add_argument("--seconds", type=float, required=True, help="how long it took")
    parser.add_argument("--rl", action="store_true", help="a zero or constant policy loss is fine")
    parser.add_argument("--partial", metavar="TEXT", help="what was not run")
    line, code = verdict(parser.parse_args(argv))
    print(line)
    return code


if __name__ == "__main__":
    sys.exit(main())
