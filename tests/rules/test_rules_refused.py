"""Wrong rules files are refused with file, line, row and a hint: each file says what it expects."""

from __future__ import annotations

from pathlib import Path

import pytest

from advisor.errors import RuleError
from advisor.rules.schema import framework_document
from advisor.rules.selection import load_policy
from advisor.rules.source import read_yaml

BAD = sorted((Path(__file__).parent / "bad").glob("*.yaml"))


def load(path: Path) -> None:
    if path.name.startswith("framework-"):
        framework_document(read_yaml(path, path.name), {})
    else:
        load_policy([path])


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_refused(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    expected = first.removeprefix("# expect: ")
    with pytest.raises(RuleError) as caught:
        load(path)
    message = str(caught.value)
    assert message.split(":")[0].endswith(path.name)
    assert f"{path.name}{expected}" in message


def test_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RuleError, match=r"nowhere\.yaml: cannot be read"):
        load_policy([tmp_path / "nowhere.yaml"])


def test_absurd_nesting_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deep.yaml"
    path.write_text("rules: " + "[" * 100_000, encoding="utf-8")
    with pytest.raises(RuleError, match=r"deep\.yaml:1: nested too deeply"):
        load_policy([path])
