"""docs/accuracy.md is what the estimator gives today."""

from __future__ import annotations

from tools.accuracy_report import PAGE, SECTIONS, page


def test_page_is_fresh() -> None:
    assert PAGE.read_text("utf-8") == page(), "run `python tools/accuracy_report.py`"


def test_every_report_module_is_a_section() -> None:
    found = {path.stem for path in (PAGE.parent.parent / "tests" / "accuracy").glob("report_*.py")}
    assert found <= set(SECTIONS)
