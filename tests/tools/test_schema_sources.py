"""The extractor on small sources: what it reads out of them, and what it leaves to a running program."""

from __future__ import annotations

import textwrap
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tools.schema_sources import hydra, signatures
from tools.schema_sources.archives import Archive, Installed
from tools.schema_sources.code import Code, Unknown
from tools.schema_sources.rows import all_rows
from tools.schema_sources.snapshot import Schema, as_text

Write = Callable[[Mapping[str, str]], Code]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Files by path -> their packages, as they would be installed."""

    def write(files: Mapping[str, str]) -> Code:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text), encoding="utf-8")
        packages = {name.partition("/")[0] for name in files}
        return Code({name: Installed(tmp_path, name, "1") for name in packages})

    return write


def rows(code: Code, reference: str) -> dict[str, Any]:
    return all_rows(code, code.class_at(reference))


DATACLASS = """
    from dataclasses import dataclass, field
    from enum import Enum
    from typing import ClassVar, List, Literal, Optional, Union

    class Speed(str, Enum):
        SLOW = "slow"
        FAST = "fast"

    SIZES = ("small", "large")

    @dataclass
    class Config:
        KIND: ClassVar[str] = "x"
        required: int
        rate: float = 5e-5
        flag: Optional[bool] = None
        names: List[str] = field(default_factory=list)
        layers: list[int] = field(default_factory=lambda: [1, 2])
        either: Union[dict, str, None] = field(default=None)
        speed: Speed = field(default=Speed.FAST)
        free: Speed | str = "slow"
        size: str = field(default="small", metadata={"choices": SIZES})
        word: Literal["a", "b"] | bool = "a"
        made: str = field(default_factory=lambda: compute())
        inside: int = field(init=False)
        _valid = ["names"]
"""


def test_fields_of_a_dataclass(write: Write) -> None:
    assert rows(write({"p/m.py": DATACLASS}), "p.m:Config") == {
        "required": {"type": "int", "required": True},
        "rate": {"type": "float", "default": 5e-5},
        "flag": {"type": "bool", "optional": True, "default": None},
        "names": {"type": "list", "of": "str", "default": []},
        "layers": {"type": "list", "of": "int", "default": [1, 2]},
        "either": {"type": "dict|str", "optional": True, "default": None},
        "speed": {"type": "str", "choices": ["slow", "fast"], "default": "fast"},
        "free": {"type": "str", "choices": ["slow", "fast"], "default": "slow"},
        "size": {"type": "str", "choices": ["small", "large"], "default": "small"},
        "word": {"type": "str|bool", "choices": ["a", "b"], "default": "a"},
        "made": {"type": "str", "computed": True},
    }


INHERITED = {
    "p/__init__.py": "from .child import Child as Renamed\n",
    "p/child.py": """
        from dataclasses import dataclass
        from q import Base
        from .mixin import Mixin

        @dataclass
        class Child(Mixin, Base):
            own: int = 1
            shared: str = "child"
            nested: "Inner | None" = None

        @dataclass
        class Inner:
            depth: int = 3

        class Plain(Child):
            ignored: int = 2
    """,
    "p/mixin.py": """
        from dataclasses import dataclass

        @dataclass
        class Mixin:
            first: str = "mixin"
    """,
    "q/__init__.py": """
        try:
            from .missing import Base
        except ImportError:
            from ._base import Base
    """,
    "q/_base.py": """
        from dataclasses import dataclass
        from torch import something

        if something():
            default = "fused"
        else:
            default = "plain"

        @dataclass
        class Base:
            first: str = "base"
            shared: str = "base"
            optimizer: str = default
            unknown: something = 3
    """,
}


def test_inheritance_over_packages(write: Write) -> None:
    found = rows(write(INHERITED), "p:Renamed")
    assert {key: row.get("default") for key, row in found.items() if "." not in key} == {
        "first": "mixin",
        "shared": "child",
        "own": 1,
        "nested": None,
        "optimizer": None,
        "unknown": 3,
    }
    assert found["nested.depth"] == {"type": "int", "default": 3}
    assert found["optimizer"] == {"type": "str", "computed": True}
    assert found["unknown"]["type"] == "any"


def test_a_class_without_the_decorator_adds_nothing(write: Write) -> None:
    assert "ignored" not in rows(write(INHERITED), "p.child:Plain")


def test_shared_classes_stand_once(write: Write) -> None:
    schema = Schema()
    code = write(INHERITED)
    document = schema.add_classes("run", code, ["p:Renamed"])
    assert document.includes == ["Child", "Mixin", "Base"]
    assert schema.sections["Mixin"].origin == "p/mixin.py:Mixin"
    assert schema.keys("run")["first"]["default"] == "mixin"
    text = as_text({"framework": "f"}, schema)
    assert text == as_text({"framework": "f"}, schema)
    assert '    "own": {"type": "int", "default": 1},\n' in text


PYDANTIC = """
    from typing import Annotated, Literal
    from pydantic import BaseModel, ConfigDict, Field

    class Dataset(BaseModel):
        path: str
        type: str | None = None

    class Other(BaseModel):
        path: str
        weight: float | None = None

    class Open(BaseModel):
        model_config = ConfigDict(extra="allow")
        known: int = 1

    class Mixin:
        @classmethod
        def check(cls, data): ...

    class Config(Mixin, BaseModel):
        needed: str = Field(...)
        named: int = Field(default=3, alias="other-name")
        datasets: Annotated[list[Dataset | Other], "checked"] | None = None
        open: Open | None = None
        mode: Annotated[Literal["x", "y"] | None, Field(default=None)]
        _hidden: int = 1
"""


def test_fields_of_a_pydantic_model(write: Write) -> None:
    assert rows(write({"p/m.py": PYDANTIC}), "p.m:Config") == {
        "needed": {"type": "str", "required": True},
        "other-name": {"type": "int", "default": 3},
        "datasets": {"type": "list", "of": "dict", "optional": True, "default": None},
        "datasets[].path": {"type": "str", "required": True},
        "datasets[].type": {"type": "str", "optional": True, "default": None},
        "datasets[].weight": {"type": "float", "optional": True, "default": None},
        "open": {"type": "dict", "optional": True, "open": True, "default": None},
        "open.known": {"type": "int", "default": 1},
        "mode": {"type": "str", "optional": True, "choices": ["x", "y"], "default": None},
    }


def test_keywords_of_a_call(write: Write) -> None:
    code = write(
        {
            "p/m.py": """
            class Loader:
                @staticmethod
                def load(model, name, rank: int = 8, rate=0.5, device=pick(), *, on=None, **kwargs):
                    kernel = kwargs.get("kernel")
                    if "extra" in kwargs:
                        kwargs.pop("third", None)
            """
        }
    )
    function = signatures.method(code.class_at("p.m:Loader"), "load")
    assert signatures.rows(code, function) == {
        "name": {"type": "any", "required": True},
        "rank": {"type": "int", "default": 8},
        "rate": {"type": "float", "default": 0.5},
        "device": {"type": "any", "computed": True},
        "on": {"type": "any", "default": None},
    }
    assert list(signatures.read_from_kwargs(function)) == ["extra", "kernel", "third"]


TREE = {
    "p/conf/main.yaml": """
        defaults:
          - engine: fast
          - actor@run.actor: ${engine}_actor
          - legacy@old
          - _self_
        run:
          steps: 3
          actor:
            rate: 2e-6
    """,
    "p/conf/engine/fast.yaml": "# @package _global_\nengine: fast\n",
    "p/conf/engine/big.yaml": "# @package _global_\nengine: big\n",
    "p/conf/actor/fast_actor.yaml": """
        defaults:
          - ../optim@optim: adam
          - actor
          - _self_
        _target_: p.m.Actor
        kind: fast
    """,
    "p/conf/actor/big_actor.yaml": "defaults:\n  - actor\nshards: 4\n",
    "p/conf/actor/actor.yaml": "kind: none\nrate: 1\nextra: {}\n",
    "p/conf/optim/adam.yaml": "lr: ${run.steps}\n",
    "p/conf/legacy.yaml": "key: null\n",
    "p/conf/other.yaml": "defaults:\n  - main\n  - override engine: big\n  - _self_\nmore: true\n",
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "chosen", "expected"),
    [
        (
            "main",
            {},
            {
                "engine": "fast",
                "run.actor.optim.lr": "${run.steps}",
                "run.actor.kind": "fast",
                "run.actor.rate": 2e-6,
                "run.actor.extra": {},
                "run.actor._target_": "p.m.Actor",
                "old.key": None,
                "run.steps": 3,
            },
        ),
        ("main", {"engine": "big"}, {"engine": "big", "run.actor.shards": 4, "run.actor.kind": "none"}),
        ("other", {}, {"engine": "big", "run.actor.shards": 4, "more": True}),
    ],
)
def test_a_hydra_tree_is_composed(
    write: Write, tmp_path: Path, config: str, chosen: dict[str, str], expected: dict[str, Any]
) -> None:
    write(TREE)
    tree = hydra.Hydra(Installed(tmp_path, "p", "1"), "p/conf").compose(config, chosen)
    found = {key: leaf.value for key, leaf in hydra.flat(tree).items()}
    assert expected.items() <= found.items()
    if not chosen and config == "main":
        assert found == expected
        assert hydra.targets(tree) == {"run.actor.": "p.m.Actor"}


def test_a_missing_class_or_file_is_named(write: Write, tmp_path: Path) -> None:
    code = write(INHERITED)
    with pytest.raises(Unknown, match="p:Absent"):
        code.class_at("p:Absent")
    with pytest.raises(Unknown, match=r"p/conf/none\.yaml"):
        hydra.Hydra(Installed(tmp_path, "p", "1"), "p/conf").compose("none")


def test_an_archive_is_read_without_unpacking(tmp_path: Path) -> None:
    path = tmp_path / "some_package-1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in {
            "some_package/m.py": "x = 1\n",
            "some_package/data.bin": "?",
            "some_package-1.2.dist-info/METADATA": "Name: some-package\nRequires-Dist: q>=2\nRequires-Dist: r\n",
        }.items():
            wheel.writestr(zipfile.ZipInfo(name, (2026, 3, 4, 0, 0, 0)), text)
    archive = Archive(path)
    assert (archive.package, archive.version, archive.built) == ("some_package", "1.2", "2026-03-04")
    assert archive.requires == ["q>=2", "r"]
    assert archive.read("some_package/m.py") == "x = 1\n"
    assert archive.read("some_package/data.bin") is None
    assert archive.names("some_package") == ["m.py"]
