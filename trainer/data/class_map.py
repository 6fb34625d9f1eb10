# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The known classes of a data set, and how a YAML file says which ids or colours they have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ood_perception.errors import DataError
from ood_perception.image.image_files import IGNORED
from ood_perception.typed_values import build

Color = tuple[int, int, int]


@dataclass(frozen=True)
class ClassMap:
    """
    The known classes and how label files write them.

    names: of the classes 0 .. C-1. colors: RGB of each, 0..255.
    ids: id in the label files -> class 0 .. C-1, or IGNORED.
    label_colors: where label files are RGB, pairs of a colour and its class, or IGNORED; other
        colours are refused. () = they hold ids.
    """

    names: tuple[str, ...]
    colors: tuple[Color, ...]
    ids: dict[int, int]
    label_colors: tuple[tuple[Color, int], ...] = ()

    @classmethod
    def of(
        cls,
        classes: Iterable[tuple[str, Color]],
        ids: Sequence[int] = (),
        ignored: Iterable[int] = (IGNORED,),
    ) -> ClassMap:
        """Return the map of (name, colour) pairs; ids: of each in the files, () = 0 .. C-1."""
        names, colors = zip(*classes, strict=True)
        known = {file_id: index for index, file_id in enumerate(ids or range(len(names)))}
        return cls(names, colors, {**dict.fromkeys(ignored, IGNORED), **known})

    def table(self) -> npt.NDArray[np.int16]:
        """Return int16 (256,): file id -> class, IGNORED, or -1 for an id that is not mapped."""
        table = np.full(256, -1, np.int16)
        for file_id, known in self.ids.items():
            table[file_id] = known
        return table


_OWN = object()  # ids of a class that names none: its own place


@dataclass(frozen=True)
class _Entry:
    name: Any
    color: Any = None
    ids: Any = _OWN
    colors: Any = None


@dataclass(frozen=True)
class _File:
    classes: tuple[_Entry, ...]
    ignored: Any = IGNORED
    ignored_colors: Any = None


def class_map_of(content: object, place: str) -> ClassMap:
    """
    Read a class map: ``classes`` (list of {name, color, ids, colors}), ``ignored`` (list of ids).

    Where label files are RGB, `colors` of each class and `ignored_colors` are lists of RGB.
    content: what YAML gave; one value stands for a list of one, an empty one for none. place:
    named in errors. Raises DataError for anything else, unknown keys included, and for colours
    that belong to two classes or are lacking for a class.
    """
    file: _File = build(_File, content, place, DataError)
    names, colors, ids = [], [], {}
    for index, entry in enumerate(file.classes):
        names.append(_name_of(entry.name, f'{place}: classes {index + 1}'))
        own = f'{place}: class {names[-1]}'
        colors.append((0, 0, 0) if entry.color is None else color_of(entry.color, own))
        for file_id in _listed(index if entry.ids is _OWN else entry.ids):
            _add_id(ids, file_id, index, f'{own}: ids')
    for file_id in _listed(file.ignored):
        _add_id(ids, file_id, IGNORED, f'{place}: ignored')
    if not names or len(set(names)) != len(names) or len(names) > 254:
        raise DataError(f'{place}: needs 1 to 254 classes of different names, has {names}')
    return ClassMap(tuple(names), tuple(colors), ids, _label_colors(file, place))


def _label_colors(file: _File, place: str) -> tuple[tuple[Color, int], ...]:
    """Return the pairs of colour and class, () where no class has any."""
    lists = [(_colors(entry.colors), c) for c, entry in enumerate(file.classes)]
    if not any(colors for colors, _ in lists):
        return ()
    lacking = [str(file.classes[c].name) for colors, c in lists if not colors]
    if lacking:
        raise DataError(f'{place}: classes {lacking} have no "colors" while others have some')
    pairs: dict[Color, int] = {}
    for colors, known in [*lists, (_colors(file.ignored_colors), IGNORED)]:
        for value in colors:
            color = color_of(value, place)
            if pairs.setdefault(color, known) != known:
                raise DataError(f'{place}: label colour {list(color)} belongs to two classes')
    return tuple(pairs.items())


def color_of(value: object, place: str) -> Color:
    """Return an RGB colour that YAML gave; DataError naming the place for anything else."""
    if not isinstance(value, (list, tuple)) or len(value) != 3 or not all(map(_is_byte, value)):
        raise DataError(f'{place}: color {value!r} is not three numbers 0..255, all whole')
    red, green, blue = value
    return red, green, blue


def _name_of(name: object, place: str) -> str:
    if isinstance(name, bool) or not isinstance(name, (str, int)) or not str(name).strip():
        raise DataError(f'{place}: name {name!r} is no text: write it in quotes')
    return str(name)


def _listed(value: object) -> list[Any]:
    """Return a list as it is, one value as a list of one, an empty value as none."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _colors(value: object) -> list[Any]:
    """Return a list of colours; one colour alone stands for a list of one."""
    listed = _listed(value)
    return [listed] if listed and not any(isinstance(v, (list, tuple)) for v in listed) else listed


def _is_byte(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255


def _add_id(ids: dict[int, int], file_id: object, known: int, place: str) -> None:
    if not _is_byte(file_id):
        raise DataError(f'{place}: label id {file_id!r} is not a whole number from 0 to 255')
    assert isinstance(file_id, int)
    if ids.setdefault(file_id, known) != known:
        raise DataError(f'{place}: label id {file_id} belongs to two classes, or is ignored too')
