# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Folders of images and labels: complete, or an error that says what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ood_perception.errors import DataError
from ood_perception.image.image_files import IMAGES, label_files, sorted_out, tell, visible

from ..data.images import list_images, need_files


def need_folder(folder: Path, remedy: str) -> Path:
    """Return an existing folder; DataError naming it and the remedy."""
    if not folder.is_dir():
        raise DataError(f'folder {folder} does not exist; {remedy}')
    return folder


def nested_images(folder: Path, remedy: str) -> list[Path]:
    """Return the images in all folders of a folder, folder by folder; DataError for none."""
    inner = [path for path in visible(need_folder(folder, remedy)) if path.is_dir()]
    found = [image for path in inner for image in list_images(path)]
    if not found:
        raise DataError(f'{folder} holds no folders with images; {remedy}')
    return found


def labels_of(images: Sequence[Path], folder: Path) -> list[Path]:
    """
    Return the label file of every image: of its name, in any format that labels are read in.

    Labels without an image are told of; DataError where their image lies there in a format that
    is not read, and naming the first image without a label.
    """
    files = label_files(folder)
    labels = [files.get(path.stem, folder / f'{path.stem}.png') for path in images]
    need_files(labels, 'label files')
    alone = sorted(set(files) - {path.stem for path in images})
    if alone:
        _of_unread_images(images[0].parent, set(alone), files)
        tell(f'{folder}: {len(alone)} labels have no image, such as {files[alone[0]].name}')
    return labels


def _of_unread_images(folder: Path, alone: set[str], files: Mapping[str, Path]) -> None:
    """Raise DataError where one of the stems belongs to a file that is read as no image."""
    for path in sorted_out(folder)[1]:
        if path.stem in alone:
            raise DataError(
                f'{path} has the label {files[path.stem]}, but is not read: save it as one of '
                f'{", ".join(IMAGES)}'
            )


def before_last(names: Iterable[str]) -> list[str]:
    """Return names up to their last '_': the sequences where frames are numbered."""
    return [name.rpartition('_')[0] for name in names]
