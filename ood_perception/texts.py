# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Texts of bundles, recordings and file names, made fit for terminals, logs and tables."""

from __future__ import annotations

import re
import sys
from typing import Any

MOST_CHARACTERS = 4000
_FORMULA = re.compile(r"'*[=+\-@＝＋－＠\t\r]")  # full width: Excel in Japanese


def tell(text: str) -> None:
    """Print a line for the person at the terminal, beside what a program puts out."""
    print(text, file=sys.stderr)


def printable(text: str, most: int = MOST_CHARACTERS, keep: str = '') -> str:
    r"""
    Return a text that moves no cursor and turns no line around, of about `most` characters.

    Control, bidirectional and invisible characters and lone surrogates become escapes (\x1b,
    \u202e), but for those in `keep`; the middle of a long text is left out.
    """
    if len(text) > most:
        left = len(text) - most
        text = f'{text[: most // 2]}...({left} characters)...{text[len(text) - most // 2 :]}'
    if text.isprintable():
        return text
    return ''.join(
        c if c.isprintable() or c in keep else c.encode('unicode_escape').decode() for c in text
    )


def table_cell(value: Any) -> Any:
    """Return a value for a CSV cell: a text that a spreadsheet would run is marked by a quote."""
    if not isinstance(value, str):
        return '' if value is None else value
    return as_no_formula(printable(value))


def as_no_formula(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula; from_no_formula gives it back."""
    return f"'{text}" if _FORMULA.match(text) else text


def from_no_formula(text: str) -> str:
    """Return the text that as_no_formula was given."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text
