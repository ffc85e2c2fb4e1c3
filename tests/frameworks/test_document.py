"""advisor/frameworks/document.py: what lines become."""

from __future__ import annotations

from advisor.frameworks.document import Document, Line


def test_a_block_that_two_groups_write_stands_once() -> None:
    """Written twice, YAML would keep the second block alone: keys of the first would be lost."""
    lines = (
        Line("kind", "FSDP", "", "Kernels"),
        Line("fsdp_config.version", 2, "", "Kernels"),
        Line("kind", "FSDP", "", ""),
        Line("fsdp_config.offload", False, "", ""),
    )
    groups = Document("accelerate", lines).groups()
    assert [title for title, _ in groups] == ["Kernels"]
    assert {line.key: line.value for line in groups[0][1]} == {
        "kind": "FSDP",
        "fsdp_config": {"version": 2, "offload": False},
    }
