"""docs/drift.md is what the tables and snapshots say today."""

from __future__ import annotations

import pytest

from advisor import schemas
from advisor.drift import emitted_keys
from advisor.frameworks import NAMES
from advisor.history import renames
from tools.drift_report import PAGE, page


def test_the_page_is_fresh() -> None:
    assert PAGE.read_text("utf-8") == page(), "run `python tools/drift_report.py`"


@pytest.mark.parametrize("name", NAMES)
def test_every_emitted_key_exists_in_some_release(name: str) -> None:
    keys = emitted_keys(name)
    assert keys
    assert not [key.key for key in keys if not key.releases]


def test_what_changed_is_told() -> None:
    found = {key.key: key for key in emitted_keys("llamafactory")}
    known = schemas.versions("llamafactory")
    assert found["use_muon"].since(known) == "since 0.9.3"
    assert "0.9.3: new" in found["use_muon"].changes
    assert "0.9.5: type int -> float" in found["warmup_steps"].changes
    assert found["lora_rank"].since(known) == "all"
    assert found["lora_rank"].changes == ()
    swift = {key.key: key for key in emitted_keys("ms-swift")}
    assert swift["tuner_type"].renamed == "train_type before ms-swift 4.1.0"
    assert swift["fsdp.fsdp_config.fsdp_version"].within == "fsdp"


def test_a_rename_agrees_with_the_snapshots() -> None:
    """No release read from `until` on takes the old key as its own, and where there is a new one, it takes that."""
    wrong: list[str] = []
    for name in NAMES:
        for row in renames():
            if row.package != name:
                continue
            for version in schemas.versions(name):
                snapshot = schemas.load(name, version)
                gone = schemas.release_key(version) >= schemas.release_key(row.until)
                for document, keys in snapshot.documents.items():
                    if gone and row.old in keys and document.startswith(row.document):
                        wrong.append(f"{name} {version} {document}: {row.old}")
                if gone and row.new and not any(row.new in keys for keys in snapshot.documents.values()):
                    wrong.append(f"{name} {version}: no {row.new}")
    assert not wrong
