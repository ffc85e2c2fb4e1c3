"""Rows of training data: what a row means, what is wrong with it, and how it reads in another format.

Every format is parsed into a neutral row (`reading`) and written from one (`writing`).

Neutral rows, by `kind`:
  text    text
  chat    messages, split (index of the first message of the answer)
  pair    prompt, chosen, rejected (lists of messages; prompt is empty when the row has none)
  label   prompt, completion (lists of messages), label
  prompt  prompt (list of messages), solution
Each also has `plain` (the row held bare strings, no turns), `tools` (or None) and `extra` (other columns).

`extra` columns are no training content: only rl-prompts has room for them, other targets leave them out.
All else is kept, or the conversion raises ValueError with the reason.
"""

from __future__ import annotations

from advisor.facts.rows.formats import (
    COLUMNS,
    FORMATS,
    LABEL_NAMES,
    MESSAGES_NAMES,
    PROMPT_NAMES,
    SOLUTION_NAMES,
    Message,
    Row,
    guess,
    mapping,
    solution_column,
)
from advisor.facts.rows.reading import neutral, problem
from advisor.facts.rows.writing import convert, render, take_chosen, unpair

__all__ = [
    "COLUMNS",
    "FORMATS",
    "LABEL_NAMES",
    "MESSAGES_NAMES",
    "PROMPT_NAMES",
    "SOLUTION_NAMES",
    "Message",
    "Row",
    "convert",
    "guess",
    "mapping",
    "neutral",
    "problem",
    "render",
    "solution_column",
    "take_chosen",
    "unpair",
]
