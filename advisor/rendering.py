"""The Jinja environments. Nothing else renders.

One environment per target language, chosen by the template's suffix (`run.sh.jinja` -> bash). Every
value is quoted for that language by `finalize`; the only ways round are filters that validate what
they let through (`bare`) or that produce a whole safe line (`yaml_line`, `comment`).
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Undefined
from markupsafe import Markup

from advisor.paths import templates_root

BARE = re.compile(r"[\w./:@%+,=<>\[\]*~ \-]*", re.ASCII)
"""What `|bare` lets through: no quotes, no dollar sign, no backslash, no newline, no backtick."""


CODE_SPAN = re.compile(r"(`[^`]+`)")


def yaml_scalar(value: Any) -> str:
    """One YAML 1.1/1.2-safe scalar or flow value. Strings are always double-quoted: PyYAML, YAML 1.2
    readers and OmegaConf disagree on what a plain `no`, `1e-5` or `0o17` is."""
    if isinstance(value, str):
        text = yaml.safe_dump(value, default_style='"', width=10**9, allow_unicode=True)
    else:
        text = yaml.safe_dump(
            value, default_flow_style=True, width=10**9, allow_unicode=True, sort_keys=False
        )
    return text.removesuffix("\n").removesuffix("\n...")


def yaml_line(line: Any) -> Markup:
    """`key: value  # why`, or a block below the key for mappings and lists of mappings."""
    why = f"  # {comment(line.why)}" if line.why else ""
    if _is_block(line.value):
        block = yaml.safe_dump(
            line.value, default_flow_style=False, width=10**9, allow_unicode=True, sort_keys=False
        )
        body = "".join(f"  {row}\n" for row in block.splitlines())
        return Markup(f"{line.key}:{why}\n{body}".rstrip("\n"))
    return Markup(f"{line.key}: {_plain(line.value)}{why}")


def _is_block(value: Any) -> bool:
    if isinstance(value, Mapping):
        return True
    return isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value)


def _plain(value: Any) -> str:
    """A scalar as people write it where that is safe, quoted where readers could disagree."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**9, allow_unicode=True)
    text = text.removesuffix("\n").removesuffix("\n...")
    if isinstance(value, str) and not re.fullmatch(r"[A-Za-z_][\w./-]*", value):
        return yaml_scalar(value)
    return text


def comment(text: str) -> Markup:
    """One line of prose for behind a `#`."""
    return Markup(" ".join(str(text).split()))


def python_literal(value: Any) -> str:
    return repr(value)


def json_literal(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)


def markdown_text(value: Any) -> str:
    """Prose in a README: one paragraph, no raw HTML. Code spans stay as they are: nothing in them is markup."""
    parts = CODE_SPAN.split(" ".join(str(value).split()))
    return "".join(
        part if number % 2 else part.replace("<", "&lt;").replace(">", "&gt;")
        for number, part in enumerate(parts)
    )


def bash_word(value: Any) -> str:
    return shlex.quote(str(value))


def bare(value: Any) -> Markup:
    """A value that needs no quoting in any target language; refuses every other."""
    text = str(value)
    if not BARE.fullmatch(text):
        raise ValueError(f"not safe without quotes: {text!r}")
    return Markup(text)


def words(values: Any) -> Markup:
    """A bash command line from an argv."""
    return Markup(" ".join(shlex.quote(str(value)) for value in values))


QUOTERS: dict[str, Callable[[Any], str]] = {
    "sh": bash_word,
    "sbatch": bash_word,
    "env": bash_word,
    "yaml": yaml_scalar,
    "json": json_literal,
    "py": python_literal,
    "md": markdown_text,
    "txt": lambda value: str(bare(value)),
    "Makefile": lambda value: str(bare(value)),
    "Dockerfile": lambda value: str(bare(value)),
}


def _finalize(quote: Callable[[Any], str]) -> Callable[[Any], Any]:
    def finalize(value: Any) -> Any:
        if isinstance(value, Undefined):
            return str(value)  # StrictUndefined raises here, naming the variable
        return value if isinstance(value, Markup) else Markup(quote(value))

    return finalize


@cache
def environment(language: str) -> Environment:
    if language not in QUOTERS:
        raise ValueError(f"no quoting is defined for .{language} files")
    result = Environment(
        loader=FileSystemLoader(str(templates_root())),
        autoescape=True,
        finalize=_finalize(QUOTERS[language]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        auto_reload=False,
    )
    result.filters.update(
        yaml_line=yaml_line, comment=comment, bare=bare, words=words, python=lambda v: Markup(repr(v))
    )
    return result


def render(template: str, **context: Any) -> str:
    """Render `templates/<template>` (its name ends in `.<language>.jinja`)."""
    language = template.removesuffix(".jinja").rsplit("/", 1)[-1].rsplit(".", 1)[-1]
    return environment(language).get_template(template).render(**context)
