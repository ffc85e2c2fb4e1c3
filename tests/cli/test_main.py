"""The entry: what it lists, how it fails, and what a mere `--help` may import."""

from __future__ import annotations

import subprocess
import sys

import pytest

from advisor.cli.main import COMMANDS
from tests.cli.conftest import Advisor

HEAVY = ("torch", "transformers", "pydantic", "yaml", "jinja2", "questionary", "cel", "numpy")


def test_help_lists_every_command(run: Advisor) -> None:
    ran = run("--help")
    assert ran.code == 0
    for name, (text, _) in COMMANDS.items():
        assert name in ran.out
        assert text.split(".")[0][:30] in ran.out


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help(run: Advisor, name: str) -> None:
    ran = run(name, "--help")
    assert ran.code == 0
    assert "Usage: advisor " + name in ran.out


@pytest.mark.parametrize(
    "argv", [["nonsense"], ["recommend", "--nonsense"], ["estimate", "--output", "xml"], ["schema"]]
)
def test_bad_usage_is_2(run: Advisor, argv: list[str]) -> None:
    ran = run(*argv)
    assert ran.code == 2
    assert ran.out == ""
    assert "Traceback" not in ran.err


def test_version(run: Advisor) -> None:
    from advisor import __version__

    assert __version__ in run("--version").out


def test_help_starts_light() -> None:
    code = (
        "import sys\nfrom advisor.cli.main import main\nmain(['--help'])\n"
        f"print('heavy:', [n for n in {HEAVY!r} if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.endswith("heavy: []\n")


@pytest.mark.parametrize("name", ["models", "gpus", "explain"])
def test_looking_up_imports_no_trainer(name: str) -> None:
    code = (
        f"import sys\nfrom advisor.cli.main import main\nassert main([{name!r}]) == 0\n"
        "sys.exit([n for n in ('torch', 'transformers', 'jinja2', 'questionary') if n in sys.modules] != [])"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)


def test_a_fault_of_ours_is_1_and_says_how_to_report(run: Advisor, monkeypatch: pytest.MonkeyPatch) -> None:
    import advisor.advise as module

    def broken(request: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(module, "advise", broken)
    ran = run("recommend", "--model", "Qwen/Qwen3-8B", "--gpu", "h100", "--method", "sft")
    assert ran.code == 1
    assert "fault of ours" in ran.err
    assert "RuntimeError: boom" in ran.err


def test_interrupt_is_130(run: Advisor, monkeypatch: pytest.MonkeyPatch) -> None:
    import advisor.advise as module

    def interrupted(request: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "advise", interrupted)
    assert run("recommend", "--model", "Qwen/Qwen3-8B", "--gpu", "h100", "--method", "sft").code == 130
