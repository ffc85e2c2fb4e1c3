"""The compiled copy: used while nothing has changed, never after."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from advisor.errors import RuleError
from advisor.paths import rules_root
from advisor.rules import source, store
from advisor.rules.store import cache_path, compile_documents, load_documents

HERE = Path(__file__).parent
CHECKOUT = HERE.parent.parent


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Path(shutil.copytree(HERE / "demo", tmp_path / "rules"))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The YAML files that were read."""
    read: list[str] = []
    original = source.read_yaml

    def counting(path: Path, shown: str, **options: bool) -> Any:
        read.append(path.name)
        return original(path, shown, **options)

    monkeypatch.setattr(source, "read_yaml", counting)
    return read


def title(documents: Any) -> str:
    return documents["frameworks"]["demo"]["title"]


def test_the_second_load_reads_no_yaml(root: Path, reads: list[str]) -> None:
    first = load_documents(root)
    assert sorted(reads) == ["00-demo.yaml", "demo.yaml"]
    reads.clear()
    assert load_documents(root) == first
    assert reads == []


def test_a_stale_copy_is_not_used_even_with_the_same_size_and_time(root: Path) -> None:
    assert title(load_documents(root)) == "Demo Trainer"
    path = root / "frameworks" / "demo.yaml"
    status = path.stat()
    path.write_text(
        path.read_text(encoding="utf-8").replace("Demo Trainer", "Dema Trainer"), encoding="utf-8"
    )
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    assert title(load_documents(root)) == "Dema Trainer"


def test_a_new_and_a_removed_file_are_noticed(root: Path) -> None:
    load_documents(root)
    path = root / "selection" / "00-demo.yaml"
    text = path.read_text(encoding="utf-8").replace("demo-policy.like", "demo-policy.more")
    (root / "selection" / "50-more.yaml").write_text(text, encoding="utf-8")
    assert set(load_documents(root)["selection"]) == {"selection/00-demo.yaml", "selection/50-more.yaml"}
    path.unlink()
    assert set(load_documents(root)["selection"]) == {"selection/50-more.yaml"}


def test_a_change_of_the_code_that_checks_is_noticed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = store.digest(root)
    package = Path(shutil.copytree(CHECKOUT / "advisor", root.parent / "package"))
    monkeypatch.setattr(store, "_PACKAGE", package)
    assert store.digest(root) == before
    with (package / "plan.py").open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    assert store.digest(root) != before


@pytest.mark.parametrize("content", ["", "{", "[]", '{"digest": "0"}', "\0"])
def test_a_damaged_copy_is_replaced(root: Path, content: str) -> None:
    path = cache_path(root)
    path.parent.mkdir(parents=True)
    path.write_text(content, encoding="utf-8")
    assert title(load_documents(root)) == "Demo Trainer"
    assert json.loads(path.read_text(encoding="utf-8"))["digest"] == store.digest(root)


def test_a_cache_that_cannot_be_written_does_not_matter(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root.parent / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(root.parent / "file"))
    assert title(load_documents(root)) == "Demo Trainer"


def test_a_file_that_changes_while_it_is_read_is_not_kept(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = source.read_yaml

    def editing(path: Path, shown: str, **options: bool) -> Any:
        node = original(path, shown, **options)
        with path.open("a", encoding="utf-8") as file:
            file.write("# edited meanwhile\n")
        return node

    monkeypatch.setattr(source, "read_yaml", editing)
    assert compile_documents(root)["digest"] == ""


def test_the_shipped_copy_is_used(root: Path, reads: list[str]) -> None:
    program = [sys.executable, str(CHECKOUT / "tools" / "compile_rules.py")]
    code = "import sys; sys.path.insert(0, sys.argv[1]); import compile_rules as c; from pathlib import Path;"
    code += "c.compile_rules(Path(sys.argv[2]), Path(sys.argv[2]) / 'compiled.json')"
    subprocess.run([sys.executable, "-c", code, str(CHECKOUT / "tools"), str(root)], check=True)
    assert title(load_documents(root)) == "Demo Trainer"
    assert reads == []
    out = root.parent / "all.json"
    subprocess.run([*program, str(out)], check=True)
    assert json.loads(out.read_text(encoding="utf-8"))["digest"] == store.digest(rules_root())


def test_an_installed_copy_reads_its_own_rules(root: Path) -> None:
    """The layout of a wheel: the rules inside the package, compiled; the checkout and YAML stay out of it."""
    site = root.parent / "site"
    ignored = shutil.ignore_patterns("__pycache__", "_data")
    shutil.copytree(CHECKOUT / "advisor", site / "advisor", ignore=ignored)
    data = Path(shutil.copytree(rules_root(), site / "advisor" / "_data" / "rules"))
    program = [sys.executable, str(CHECKOUT / "tools" / "compile_rules.py"), str(data / "compiled.json")]
    subprocess.run(program, check=True)
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r}); import advisor.rules as r;"
        "from advisor.paths import rules_root;"
        f"assert str(rules_root()).startswith({str(site)!r}), rules_root();"
        "assert r.load_policy().rules and r.framework_names();"
        "assert 'yaml' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root.parent)


def test_a_file_is_named_after_its_framework(root: Path) -> None:
    (root / "frameworks" / "demo.yaml").rename(root / "frameworks" / "other.yaml")
    with pytest.raises(RuleError, match=r"rules/frameworks/other\.yaml:1: .*other.*demo"):
        compile_documents(root)


def test_ids_are_unique_over_all_files(root: Path) -> None:
    path = root / "selection" / "00-demo.yaml"
    path.write_text(
        path.read_text(encoding="utf-8").replace("demo-policy.like", "demo.sft"), encoding="utf-8"
    )
    with pytest.raises(RuleError, match=r"id 'demo\.sft' is taken by rules/frameworks/demo\.yaml"):
        compile_documents(root)
