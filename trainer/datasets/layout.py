# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""How a data set lies on disk, as its file in sets/ says, and the list of images that it gives."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ood_perception.errors import DataError
from ood_perception.image.image_files import label_files, tell

from ..data.images import ClassMap, ImageList, image_list, list_images, need_files
from ..data.scenes import SceneRow, read_scenes
from .class_maps import need_label_ids
from .files import labels_of, need_folder, nested_images

CHECKS: dict[str, Callable[[Sequence[Path]], None]] = {'label_ids': need_label_ids}
ALL = '*'
_PACKAGE = Path(__file__).parent


@dataclass(frozen=True)
class Split:
    """
    A split, and which images belong to it.

    name: of the split, '' where a set has none. part, source: what stands for {part}, by default
        the name, and for {source} in the layout's patterns.
    whole, count: images of the folder and of the split; others are refused, since a part is not
        comparable. 0 = any number.
    without: places in the order of the layout that are left out. only: what frames' names match.
    thirds: of every three images these, () = all.
    labelled: whether there are labels.
    """

    name: str = ''
    part: str = ''
    source: str = ''
    whole: int = 0
    count: int = 0
    without: tuple[int, ...] = ()
    only: str = ''
    thirds: tuple[int, ...] = ()
    labelled: bool = True

    def chosen(self, frames: Sequence[Frame]) -> list[Frame]:
        """Return the frames of the split."""
        kept = [frame for place, frame in enumerate(frames) if place not in self.without]
        kept = [frame for frame in kept if re.search(self.only, frame.frame)]
        return [f for place, f in enumerate(kept) if not self.thirds or place % 3 in self.thirds]


class Frame(NamedTuple):
    """
    An image as patterns name it.

    name: of the listed file, frame: without what the layout cuts off, folder: that it lies in.
    scene: by a list of scenes, else the frame's name up to its first '_'.
    """

    name: str
    frame: str = ''
    folder: str = ''
    path: Path | None = None
    scene: str = ''

    def fill(self, pattern: str) -> str:
        """Return a pattern with the frame's names; drive: the frame's up to its last '_'."""
        return pattern.format(
            name=self.name,
            frame=self.frame,
            folder=self.folder,
            drive=self.frame.rpartition('_')[0],
            scene=self.scene or self.frame.partition('_')[0],
        )


@dataclass(frozen=True)
class Layout:
    """
    Where images and labels lie, in patterns below the set's folder.

    In patterns {part} and {source} are the split's, {root} is the set's folder, {package} that of
    trainer.datasets; {name}, {frame}, {folder}, {drive} and {scene} are an image's, see Frame.

    images, labels: a folder of files, all folders in one ('train/*'), or an image's own file
        ('x/{frame}.png'; that of images may hold '*'). Files are listed where no frame is named,
        images before labels; a label in a plain folder has its image's name, in any format that
        labels are read in.
    roots: where images with '*' are looked for. listing: a text of names, or the scenes.csv of
        data.scenes, in the place of a folder's listing.
    source: of the splits that the layout is for, '' = all. when: what exists where the layout is
        this one. cut, only: of listed names, regular expressions: what is no part of a frame's
        name; which count.
    order: 'frame': by it; 'number': by folder, then by number. names, sequences: patterns.
    classes: file of the class map, see class_maps.class_file. check: a key of CHECKS.
    remedy, image_remedy, label_remedy: what to do about missing folders, images and labels.
    """

    images: str
    labels: str
    roots: tuple[str, ...] = ('.',)
    listing: str = ''
    source: str = ''
    when: str = ''
    cut: str = '$^'
    only: str = ''
    order: str = ''
    names: str = '{name}'
    sequences: str = ''
    classes: str = ''
    check: str = ''
    remedy: str = ''
    image_remedy: str = ''
    label_remedy: str = ''


class Site:
    """A layout's patterns in one folder, for one split."""

    def __init__(self, root: Path, split: Split, layout: Layout) -> None:
        self.root, self.split, self.layout = root, split, layout
        self.values = {'part': split.part or split.name, 'source': split.source}
        self.values |= {'root': str(root), 'package': str(_PACKAGE)}

    def text(self, pattern: str) -> str:
        """Return a pattern without the split's names, those of frames left as they are."""
        if not self.values['part']:  # a set of one part lies in the folder itself
            pattern = pattern.replace('{part}/', '')
        return re.sub(r'{(part|source|root|package)}', lambda m: self.values[m[1]], pattern)

    def is_here(self) -> bool:
        """Whether the layout is the folder's, and of the split."""
        here = not self.layout.when or (self.root / self.text(self.layout.when)).exists()
        return here and self.layout.source in ('', self.split.source)

    def chosen(self, title: str) -> list[Frame]:
        """Return the frames of the split; DataError where they are not whole. title: the set's."""
        split = self.split
        frames, place = self._frames()
        if split.whole:
            _need_count(frames, split.whole, f'{title} {split.part or split.name}', place)
        chosen = split.chosen(frames)
        if split.count:
            _need_count(chosen, split.count, f'{title} {split.name}'.strip(), place)
        return chosen

    def listed(self, frames: Sequence[Frame], classes: ClassMap) -> ImageList:
        """Return frames with images and labels; DataError naming what is missing, the remedy."""
        layout, labelled = self.layout, self.split.labelled and frames
        images = image_list(
            self._images(frames),
            self._labels(frames) if labelled else [],
            classes,
            self.text(layout.label_remedy or layout.remedy),
            [frame.fill(layout.names) for frame in frames],
            [frame.fill(layout.sequences) for frame in frames],
        )
        if layout.check:
            CHECKS[layout.check](images.labels)
        return images

    def _frames(self) -> tuple[list[Frame], Path]:
        """Return all frames in order, and the folder or file that lists them."""
        layout = self.layout
        if layout.listing:
            place = self.root / self.text(layout.listing)
            return self._of_file(place), place
        pattern = self.text(layout.labels if _of_frames(layout.images) else layout.images)
        place, remedy = self.root / pattern.removesuffix('/*'), self.text(layout.remedy)
        folder = need_folder(place, remedy) if remedy else place
        paths = nested_images(folder, remedy) if pattern.endswith('/*') else list_images(folder)
        frames = [
            Frame(path.stem, re.sub(layout.cut, '', path.stem), path.parent.name, path)
            for path in paths
            if re.search(layout.only, path.stem)
        ]
        if layout.order == 'frame':
            frames.sort(key=lambda one: one.frame)
        if layout.order == 'number':
            frames.sort(key=lambda one: (one.folder, len(one.name), one.name))
        return frames, place

    def _of_file(self, path: Path) -> list[Frame]:
        """Return the frames of a list of names or of scenes."""
        if path.suffix != '.csv':
            need_folder(path.parent, self.text(self.layout.remedy))
            return [Frame(name, name) for name in _listed_names(path)]
        rows, part = read_scenes(path), self.values['part']
        chosen = [row for row in rows if part in ('', ALL, row.split)]
        splits = ', '.join(sorted({row.split for row in rows}))
        if not chosen:
            raise DataError(f'{path} has no {part!r}; its splits are {splits}')
        if not _of_frames(self.layout.images):
            self._compare(path, rows, chosen, splits)
        return [Frame(row.name, row.name, scene=row.scene) for row in chosen]

    def _compare(
        self, path: Path, rows: Sequence[SceneRow], chosen: Sequence[SceneRow], splits: str
    ) -> None:
        """Tell of images that a list of scenes leaves out; DataError for missing ones."""
        files = {image.stem for image in list_images(self.root / self.layout.images)}
        missing = [row.name for row in chosen if row.name not in files]
        if missing:
            raise DataError(
                f'{path} lists {missing[0]}, which images/ lacks; its splits are {splits}'
            )
        unlisted = sorted(files - {row.name for row in rows})
        if unlisted:
            tell(f'{path} leaves {len(unlisted)} images out, such as {unlisted[0]}')

    def _images(self, frames: Sequence[Frame]) -> list[Path]:
        """Return the file of each image; DataError for those that are missing."""
        pattern = self.text(self.layout.images)
        if not _of_frames(self.layout.images):
            if not self.layout.listing:
                return [frame.path for frame in frames if frame.path]
            files = {path.stem: path for path in list_images(self.root / pattern)}
            return [files[frame.name] for frame in frames]
        if '*' in pattern:
            return self._found(frames, pattern)
        images = [self.root / frame.fill(pattern) for frame in frames]
        of = f'images of split {self.split.name}'
        need_files(images, of, self.text(self.layout.image_remedy or self.layout.remedy))
        return images

    def _found(self, frames: Sequence[Frame], pattern: str) -> list[Path]:
        """Return images that lie anywhere where a pattern with '*' leads to."""
        glob, tail = pattern.replace('{frame}', '*'), pattern.rpartition('{frame}')[2]
        files = {
            path.stem.removesuffix(tail.removesuffix('.*')): path
            for root in self.layout.roots
            for path in (self.root / root).glob(glob)
        }
        missing = [frame for frame in frames if frame.frame not in files]
        if missing:
            raise DataError(
                f'{len(missing)} of {len(frames)} images are missing, the first is '
                f'{missing[0].fill(pattern)}; {self.text(self.layout.image_remedy)}'
            )
        return [files[frame.frame] for frame in frames]

    def _labels(self, frames: Sequence[Frame]) -> list[Path]:
        """Return the label file of each image, which may be missing."""
        pattern, remedy = self.text(self.layout.labels), self.text(self.layout.remedy)
        if _of_frames(self.layout.labels):
            return [self.root / frame.fill(pattern) for frame in frames]
        if _of_frames(self.layout.images) and not self.layout.listing:
            return [frame.path for frame in frames if frame.path]
        folder = need_folder(self.root / pattern, remedy) if remedy else self.root / pattern
        if self.layout.listing:
            found = label_files(folder)
            return [found.get(f.name, folder / f'{f.name}.png') for f in frames]
        return labels_of([frame.path for frame in frames if frame.path], folder)


def _of_frames(pattern: str) -> bool:
    """Whether a pattern names single files, not a folder."""
    return '{frame}' in pattern or '{name}' in pattern


def _listed_names(path: Path) -> list[str]:
    """Read a list of names, with or without suffix."""
    try:
        lines = path.read_text(encoding='utf-8').split()
    except OSError as error:
        raise DataError(f'{path} cannot be read: it lists the images of the split') from error
    if not lines:
        raise DataError(f'{path} is empty: it lists the images of the split')
    return [line.removesuffix('.jpg').removesuffix('.png') for line in lines]


def _need_count(frames: Sequence[Frame], count: int, what: str, place: Path) -> None:
    """Raise DataError unless an official list is whole: a part of it is not comparable."""
    if len(frames) != count:
        raise DataError(
            f'{what} has {count} images, {place} holds {len(frames)} of them; unpack it anew, '
            'or measure your part of it as anomaly_folders'
        )
