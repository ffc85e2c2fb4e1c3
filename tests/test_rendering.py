"""Quoting: what a hostile value may not do in a file of each language."""

from __future__ import annotations

import shlex

import pytest
import yaml

from advisor.rendering import bare, bash_word, markdown_text, python_literal, yaml_scalar

HOSTILE = [
    "no",
    "1e-5",
    "a: b # c",
    "quote\" and '",
    "$(rm -rf x)",
    "`id`",
    "two\nlines",
    "{{ x }}",
    "naïve ☃",
]


@pytest.mark.parametrize("value", HOSTILE)
def test_a_value_is_read_back_as_it_was(value: str) -> None:
    assert yaml.safe_load(f"key: {yaml_scalar(value)}") == {"key": value}
    assert shlex.split(bash_word(value)) == [value]
    assert python_literal(value) == repr(value)


@pytest.mark.parametrize("value", ['a"b', "a'b", "$x", "`x`", "a\nb", "a\\b"])
def test_bare_values_need_no_quotes(value: str) -> None:
    with pytest.raises(ValueError, match="not safe without quotes"):
        bare(value)


def test_prose_holds_no_html_but_code_spans_stay() -> None:
    assert markdown_text("a <b>\n c") == "a &lt;b&gt; c"
    assert markdown_text("only `trl <method>` <i>") == "only `trl <method>` &lt;i&gt;"
    assert markdown_text("one ` and <b>") == "one ` and &lt;b&gt;"
