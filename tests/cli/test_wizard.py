"""The wizard: scripted over prompt_toolkit's pipe, and once end to end over a pseudo-terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from advisor.cli import detect, wizard
from advisor.cli.detect import Detected
from advisor.errors import InputError
from tests.cli.conftest import DATA, ROOT

ENTER, CTRL_C, CTRL_D = "\r", "\x03", "\x04"
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
SFT = str(DATA / "sft.jsonl")
CLUSTER: dict[str, Any] = {"gpu": "h100", "gpus_per_node": 8, "nodes": 1}
MODEL: dict[str, Any] = {"model": "Qwen/Qwen3-8B"}


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wizard, "detect", lambda: None)


def asked(given: dict[str, Any], *answers: str, **options: Any) -> dict[str, Any]:
    """What the wizard makes of these answers; each is a line that is sent with Enter."""
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        keys.send_text(
            "".join(answer if answer in (CTRL_C, CTRL_D) else answer + ENTER for answer in answers)
        )
        return wizard.ask(given, **options)


def test_from_nothing_to_a_request() -> None:
    values = asked({}, "qwen3-8b", SFT, "", "h100", "8", "", "lora", "4096", "memory")
    assert values == {
        "model": "qwen3-8b",
        "data": [SFT],
        "method": "sft",
        "gpu": "h100",
        "gpus_per_node": 8,
        "nodes": 1,
        "tuning": "lora",
        "seq_len": 4096,
        "prefer": "memory",
    }


def test_defaults_stay_open() -> None:
    """Enter everywhere gives what flags alone would give."""
    values = asked({**MODEL, "gpu": "h100"}, "", "", "", "", "", "", "")
    assert values == {**MODEL, "gpu": "h100", "method": "sft", "gpus_per_node": 1, "nodes": 1}


def test_what_is_given_is_not_asked() -> None:
    given = {
        **MODEL,
        **CLUSTER,
        "data": [SFT],
        "method": "sft",
        "tuning": "lora",
        "seq_len": 512,
        "prefer": "speed",
    }
    assert asked(given) == given


def test_an_answers_file_only_asks_what_is_required() -> None:
    assert asked({**MODEL, "method": "sft"}, "h100", required_only=True) == {
        **MODEL,
        "method": "sft",
        "gpu": "h100",
    }


def test_bad_answers_are_refused_as_flags_are(capsys: pytest.CaptureFixture[str]) -> None:
    values = asked(
        {"data": [SFT], "method": "sft", "tuning": "lora", "prefer": "speed"},
        "nope/nope", "", "qwen3-8b", "a100", "h100", "eight", "0", "8", "-1", "1", "90000", "4", "512",
    )  # fmt: skip
    assert values["gpus_per_node"] == 8
    err = capsys.readouterr().err
    for message in (
        "model: 'nope/nope' is not in the catalog",
        "model: needs an answer",
        "gpu: 'a100' is not one card: choose",
        "gpus_per_node: 'eight' will not do: give a whole number",
        "gpus_per_node: '0' will not do: give at least 1",
        "nodes: '-1' will not do: give at least 1",
        "seq_len: 90000 is more than the 40960 positions",
        "seq_len: '4' will not do: give at least 16",
    ):
        assert message in err


def test_bad_data_is_refused_and_asked_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = tmp_path / "odd.jsonl"
    odd.write_text('{"a": 1}\n')
    values = asked({**MODEL, **CLUSTER}, str(tmp_path / "no.jsonl"), str(odd), "", "sft", "", "", "")
    assert "data" not in values
    err = capsys.readouterr().err
    assert "does not exist" in err
    assert "odd.jsonl is in no known format (columns: a)" in err


def test_a_question_mark_explains_and_asks_again(capsys: pytest.CaptureFixture[str]) -> None:
    values = asked({**MODEL, **CLUSTER, "data": [SFT]}, "?", "sft", "?", "lora", "?", "1024", "?", "speed")
    assert (values["method"], values["tuning"], values["seq_len"], values["prefer"]) == (
        "sft",
        "lora",
        1024,
        "speed",
    )
    out = capsys.readouterr().out
    for text in ("sft (term)", "qlora (term)", "seq-len (term)", "speed: The fastest"):
        assert text in out


def test_data_offers_its_methods() -> None:
    given = {**MODEL, **CLUSTER, "tuning": "lora", "seq_len": 512, "prefer": "speed"}
    for file, method in (("preference.jsonl", "dpo"), ("kto.jsonl", "kto"), ("cpt.jsonl", "cpt")):
        assert asked({**given, "data": [str(DATA / file)]}, "")["method"] == method


def test_online_rl_asks_for_lengths_group_and_reward(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reward = tmp_path / "mine.py"
    reward.write_text("def score(*args): return 0.0\n")
    given = {**MODEL, **CLUSTER, "data": [str(DATA / "rl.jsonl")], "tuning": "lora", "prefer": "speed"}
    values = asked(given, "grpo", "512", "2048", "16", "mine.py", f"{reward}:score")
    assert (values["prompt_len"], values["response_len"], values["generations"]) == (512, 2048, 16)
    assert values["reward"] == f"{reward}:score"
    assert "seq_len" not in values
    assert "write FILE.py:function" in capsys.readouterr().err


def test_gkd_asks_for_the_teacher() -> None:
    given = {**MODEL, **CLUSTER, "data": [SFT], "method": "gkd", "tuning": "lora", "prefer": "speed"}
    assert asked(given, "Qwen/Qwen3-32B", "", "")["teacher"] == "Qwen/Qwen3-32B"
    only = {**MODEL, **CLUSTER, "method": "gkd"}
    assert asked(only, "Qwen/Qwen3-32B", required_only=True)["teacher"] == "Qwen/Qwen3-32B"


def test_a_detected_gpu_is_the_default(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(wizard, "detect", lambda: Detected("NVIDIA H100 80GB HBM3", 8, "h100-sxm"))
    values = asked({**MODEL, "data": [SFT], "method": "sft", "tuning": "lora"}, "", "", "", "", "")
    assert (values["gpu"], values["gpus_per_node"]) == ("h100-sxm", 8)
    assert "8 x NVIDIA H100 80GB HBM3" in capsys.readouterr().out


def test_an_unknown_gpu_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(wizard, "detect", lambda: Detected("NVIDIA X1", 2, ""))
    asked({**MODEL, "data": [SFT], "method": "sft", "tuning": "lora"}, "h100", "", "", "", "")
    assert "2 x NVIDIA X1, which is not in the catalog" in capsys.readouterr().out


@pytest.mark.parametrize("key", [CTRL_C, CTRL_D])
def test_leaving_is_an_interrupt(key: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        asked({}, "qwen3-8b", key)


def test_what_was_given_is_judged_before_a_question() -> None:
    with pytest.raises(InputError, match="is not in the catalog"):
        asked({"model": "nope/nope"})


@pytest.mark.parametrize(
    ("listing", "expected"),
    [
        ("NVIDIA H100 80GB HBM3, 81559 MiB\n" * 8, (8, "h100-sxm")),
        ("NVIDIA A100-SXM4-40GB, 40960 MiB\n" * 4, (4, "a100-sxm-40")),
        ("NVIDIA RTX 6000 Ada Generation, 49140 MiB\n", (1, "rtx-6000-ada")),
        ("NVIDIA GeForce RTX 4090 Laptop GPU, 16376 MiB\n", (1, "")),
        ("NVIDIA GB10, [N/A]\n", (1, "dgx-spark")),
        ("NVIDIA Y2, 1 MiB\n", (1, "")),
    ],
)
def test_driver_names(listing: str, expected: tuple[int, str]) -> None:
    found = detect.parse(listing)
    assert found is not None
    assert (found.count, found.id) == expected


def test_no_driver_or_a_hanging_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert detect.detect() is None
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nexec /bin/sleep 30\n")
    program.chmod(0o755)
    monkeypatch.setattr(detect, "TIME_OUT_S", 0.2)
    assert detect.detect() is None


# --- end to end -----------------------------------------------------------------------------------


class Terminal:
    """`advisor` on a pseudo-terminal: waits for a prompt, then answers; never by the clock."""

    LIMIT_S = 60.0

    def __init__(self, folder: Path, *argv: str) -> None:
        self.screen, child = pty.openpty()
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "TERM": "xterm",
            "COLUMNS": "100",
            "LINES": "40",
        }
        command = [sys.executable, "-m", "advisor", *argv]
        self.process = subprocess.Popen(
            command,
            stdin=child,
            stdout=child,
            stderr=child,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
        os.close(child)
        self.seen = ""
        self.deadline = time.monotonic() + self.LIMIT_S

    def wait_for(self, text: str) -> None:
        """Reads until the text has appeared after the last match."""
        while text not in (shown := CONTROL.sub("", self.seen)):
            if not self._read():
                pytest.fail(f"{text!r} did not appear; seen:\n{self.seen[-2000:]}")
        self.seen = shown.split(text, 1)[1]

    def answer(self, prompt: str, keys: str) -> None:
        self.wait_for(prompt)
        os.write(self.screen, keys.encode())

    def finish(self) -> int:
        while self._read():
            pass
        return self.process.wait(timeout=max(1.0, self.deadline - time.monotonic()))

    def _read(self) -> bool:
        ready, _, _ = select.select([self.screen], [], [], max(0.0, self.deadline - time.monotonic()))
        if not ready:
            return False
        try:
            raw = os.read(self.screen, 65536)
        except OSError:  # the other side is closed
            return False
        if b"\x1b[6n" in raw:  # asked where the cursor is
            os.write(self.screen, b"\x1b[1;1R")
        self.seen += raw.decode(errors="replace")
        return bool(raw)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.screen)


def test_on_a_terminal_from_start_to_written_repo(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, "new", "starter", "--framework", "trl", "--gpu", "h100")
    try:
        terminal.answer("Which model", "Qwen/Qwen3-0.6B\r")
        terminal.answer("Where is your data", SFT + "\r")
        terminal.answer("What do you want to train", "sft\r")
        terminal.answer("GPUs in one machine", "\r")
        terminal.answer("How many machines", "\r")
        terminal.answer("Which weights", "lora\r")
        terminal.answer("Longest sample", "\r")
        terminal.answer("files to starter?", "y")
        terminal.wait_for("Next:")
        assert terminal.finish() == 0
    finally:
        terminal.close()
    assert (tmp_path / "starter" / "train.yaml").is_file()
    assert (tmp_path / "starter" / "answers.yaml").is_file()


def test_ctrl_c_on_a_terminal_is_130_and_writes_nothing(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, "new", "starter")
    try:
        terminal.answer("Which model", "Qwen/Qwen3-0.6B\r")
        terminal.answer("Where is your data", CTRL_C)
        assert terminal.finish() == 130
    finally:
        terminal.close()
    assert list(tmp_path.iterdir()) == []


def test_no_at_the_end_writes_nothing(tmp_path: Path) -> None:
    terminal = Terminal(
        tmp_path, "new", "starter", "--framework", "trl", "--model", "Qwen/Qwen3-0.6B", "--gpu", "h100",
        "--method", "sft",
        "--gpus-per-node", "1", "--nodes", "1", "--tuning", "lora", "--seq-len", "512", "--data", SFT,
    )  # fmt: skip
    try:
        terminal.answer("files to starter?", "n")
        assert terminal.finish() == 0
    finally:
        terminal.close()
    assert list(tmp_path.iterdir()) == []
