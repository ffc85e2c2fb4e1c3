"""templates/starter/smoke/loss.py on logs as each framework writes them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "templates/starter/smoke/loss.py"

HF_TEXT = """
 33%|###       | 1/3 [00:01<00:02, loss=6.1]\r
{'loss': '6.0712', 'grad_norm': '1.5', 'learning_rate': '1e-05', 'epoch': '0.33'}
{'eval_loss': 9.0, 'epoch': 0.33}
{'loss': '5.9921', 'grad_norm': '1.4', 'learning_rate': '5e-06', 'epoch': '0.67'}
{'train_runtime': 3.1, 'train_loss': 6.03, 'epoch': 0.67}
"""
VERL_SFT = "step:1 - train/loss:5.78 - train/grad_norm:1.2\n(pid=3) step:2 - train/loss:5.63 - train/lr:0.1\n"
VERL_RL = """\x1b[36m(TaskRunner pid=9)\x1b[0m step:1 - actor/kl_loss:0.5 - actor/pg_loss:np.float64(0.0) - critic/score/mean:0.845
step:2 - actor/pg_loss:0.0 - critic/score/mean:0.91 - training/global_step:2
"""  # noqa: E501


def judge(path: Path, *options: str) -> tuple[str, int]:
    """The line printed and the exit code."""
    command = [sys.executable, str(SCRIPT), str(path), "--steps", "3", "--seconds", "41", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout.splitlines()[-1], done.returncode


def log(folder: Path, text: str, name: str = "run.log") -> Path:
    """A log file with this text."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def state(losses: list[float], **more: float) -> str:
    """A trainer_state.json with these losses and the closing average."""
    rows = [{"loss": loss, "step": step, **more} for step, loss in enumerate(losses, 1)]
    return json.dumps({"log_history": [*rows, {"train_loss": 1.0, "step": len(losses)}]})


def test_text_log(tmp_path: Path) -> None:
    """Quoted numbers count; progress bars, averages and evaluation losses do not."""
    assert judge(log(tmp_path, HF_TEXT)) == ("smoke: OK loss=6.0712->5.9921 steps=2 seconds=41", 0)


def test_verl_logs(tmp_path: Path) -> None:
    """Console lines of both trainers, coloured and with wrapped numbers."""
    assert judge(log(tmp_path, VERL_SFT)) == ("smoke: OK loss=5.7800->5.6300 steps=2 seconds=41", 0)
    path = log(tmp_path, VERL_RL)
    assert judge(path) == ("smoke: FAILED the loss never changed (0.0000)", 1)
    assert judge(path, "--rl") == ("smoke: OK loss=0.0000->0.0000 steps=2 seconds=41", 0)


def test_trainer_state_comes_first(tmp_path: Path) -> None:
    """The last checkpoint of a folder counts, before any other log in it."""
    log(tmp_path, '{"loss": 1.0}\n{"loss": 2.0}\n', "metrics.jsonl")
    log(tmp_path, state([6.5, 6.25]), "checkpoint-2/trainer_state.json")
    log(tmp_path, state([6.5, 6.25, 6.0]), "checkpoint-3/trainer_state.json")
    assert judge(tmp_path) == ("smoke: OK loss=6.5000->6.0000 steps=3 seconds=41", 0)


def test_json_lines(tmp_path: Path) -> None:
    """Logs that nest their numbers, and steps that are logged twice."""
    rows = [{"step": 1, "data": {"train/loss": 3.5}}, {"step": 1, "loss": 9.0}, {"step": 2, "loss": 3.25}]
    log(tmp_path, "".join(json.dumps(row) + "\n" for row in rows), "run.jsonl")
    assert judge(tmp_path) == ("smoke: OK loss=3.5000->3.2500 steps=2 seconds=41", 0)


@pytest.mark.parametrize(
    ("text", "options", "why"),
    [
        (state([6.5]), (), "only 1 step was logged, at least 2 are needed"),
        (state([6.5, float("nan")]), (), "the loss of step 2 is nan"),
        (state([6.5, float("inf")]), ("--rl",), "the loss of step 2 is inf"),
        (state([6.5, 6.5]), (), "the loss never changed (6.5000)"),
        (state([6.5, 0.0], grad_norm=float("nan")), (), "a gradient norm is not finite"),
        (state([0.0, 0.0]), ("--rl",), "no finite reward or gradient norm was logged"),
        (state([6.5, float("nan")]), ("--partial", "vLLM rollout"), "the loss of step 2 is nan"),
    ],
)
def test_failures(tmp_path: Path, text: str, options: tuple[str, ...], why: str) -> None:
    """What does not count as training."""
    assert judge(log(tmp_path, text, "trainer_state.json"), *options) == (f"smoke: FAILED {why}", 1)


def test_partial_and_missing(tmp_path: Path) -> None:
    """A trained nearest path has its own exit code; nothing to read is a failure."""
    path = log(tmp_path, state([6.5, 6.0]), "trainer_state.json")
    assert judge(path, "--partial", "vLLM rollout") == ("smoke: PARTIAL vLLM rollout", 6)
    assert judge(tmp_path / "nothing")[1] == 1
    assert judge(log(tmp_path / "other", "all went well\n"))[1] == 1


def test_small_moves_are_shown_with_the_digits_they_need(tmp_path: Path) -> None:
    """A preference loss starts at log 2 and moves little in three steps."""
    (tmp_path / "trainer_state.json").write_text(state([0.6931472, 0.6931498, 0.6931301]))
    assert judge(tmp_path) == ("smoke: OK loss=0.69315->0.69313 steps=3 seconds=41", 0)
