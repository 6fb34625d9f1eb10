# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Progress bars of the trainer's long work, shown unless a command was told --quiet."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

_SHOWN = [True]


def show_progress(shown: bool) -> None:
    """Show or hide the bars that begin from now on, in the whole process."""
    _SHOWN[0] = shown


def progress_bar(
    items: Iterable[Any] | None, what: str, unit: str = 'image', **more: Any
) -> tqdm[Any]:
    """Return a bar over items (None: counted by hand); what: its title. more: options of tqdm."""
    return tqdm(items, what, unit=unit, disable=not _SHOWN[0], **more)
