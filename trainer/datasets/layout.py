# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What all layouts check: folders, complete lists, a label for every picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ood_perception.errors import DataError
from ood_perception.image.image_files import PICTURES, sorted_out, tell, visible
from ood_perception.image.label_files import label_files

from ..data.images import ClassMap, PictureList, list_pictures


def need_folder(folder: Path, remedy: str) -> Path:
    """Return an existing folder; DataError naming it and the remedy."""
    if not folder.is_dir():
        raise DataError(f'folder {folder} does not exist; {remedy}')
    return folder


def need_count(images: Sequence[Path], count: int, what: str, place: Path) -> None:
    """Raise DataError unless an official list is whole: a part of it is not comparable."""
    if len(images) != count:
        raise DataError(
            f'{what} has {count} pictures, {place} holds {len(images)} of them; unpack it anew, '
            'or measure your part of it as anomaly_folders'
        )


def nested_pictures(folder: Path, remedy: str) -> list[Path]:
    """Return the pictures in all folders of a folder, folder by folder; DataError for none."""
    inner = [path for path in visible(need_folder(folder, remedy)) if path.is_dir()]
    found = [picture for path in inner for picture in list_pictures(path)]
    if not found:
        raise DataError(f'{folder} holds no folders with pictures; {remedy}')
    return found


def labels_of(images: Sequence[Path], folder: Path) -> list[Path]:
    """
    Return the label file of every picture: of its name, in any format that labels are read in.

    Labels without a picture are told of; DataError where their picture lies there in a format that
    is not read, and naming the first picture without a label.
    """
    files = label_files(folder)
    labels = [files.get(path.stem, folder / f'{path.stem}.png') for path in images]
    missing = [path for path in labels if not path.is_file()]
    if missing:
        raise DataError(f'{len(missing)} label files are missing, the first is {missing[0]}')
    alone = sorted(set(files) - {path.stem for path in images})
    if alone:
        _of_unread_pictures(images[0].parent, set(alone), files)
        tell(f'{folder}: {len(alone)} labels have no picture, such as {files[alone[0]].name}')
    return labels


def _of_unread_pictures(folder: Path, alone: set[str], files: Mapping[str, Path]) -> None:
    """Raise DataError where one of the stems belongs to a file that is read as no picture."""
    for path in sorted_out(folder)[1]:
        if path.stem in alone:
            raise DataError(
                f'{path} has the label {files[path.stem]}, but is not read: save it as one of '
                f'{", ".join(PICTURES)}'
            )


def picture_list(
    images: Sequence[Path],
    label_of: Callable[[Path], Path] | None,
    classes: ClassMap,
    remedy: str,
    name_of: Callable[[Path], str] = lambda path: path.stem,
    sequence_of: Callable[[Path], str] = lambda _: '',
) -> PictureList:
    """
    Make a list of pictures with their label files, in the order given.

    label_of: picture -> label file, None where the set has no labels. remedy: what to do about
    missing labels. Raises DataError naming the first missing label, or a name that repeats.
    """
    labels = [label_of(path) for path in images] if label_of else []
    missing = [path for path in labels if not path.is_file()]
    if missing:
        raise DataError(
            f'{len(missing)} of {len(labels)} label files are missing, the first is {missing[0]}; '
            f'{remedy}'
        )
    names = [name_of(path) for path in images]
    repeated = sorted({name for name in names if names.count(name) > 1}) if _repeats(names) else []
    if repeated:
        raise DataError(f'{images[0].parent}: several pictures are called {repeated[0]!r}')
    sequences = tuple(sequence_of(path) for path in images)
    return PictureList(tuple(names), tuple(images), tuple(labels), sequences, classes)


def before_last(path: Path) -> str:
    """Return a picture's name up to its last '_': the sequence where frames are numbered."""
    return path.stem.rpartition('_')[0]


def _repeats(names: Sequence[str]) -> bool:
    return len(set(names)) != len(names)
