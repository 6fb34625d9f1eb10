# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Data sets: the rows of the table, from sets/, and one that was opened, to be measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ood_perception.errors import ConfigError, DataError
from ood_perception.files import user_path
from ood_perception.typed_values import build
from ood_perception.types import UInt8Array
from ood_perception.yaml_files import read_mapping

from ..data.class_map import ClassMap, class_map_of
from ..data.images import ImageList
from . import mvtec, road_open
from .class_maps import anomaly_map, class_file
from .layout import Layout, Site, Split
from .panoptic import PanopticLabels

KINDS = ('anomaly', 'closed-set', 'maritime', 'inspection')
REGIONS = ('image', 'road')
TRACKS = ('', 'AnomalyTrack', 'ObstacleTrack', 'LostAndFound')
FILES = (
    'anomaly', 'road_anomaly', 'smiyc', 'lost_and_found', 'fishyscapes', 'streethazards', 'issu',
    'lars', 'maritime', 'mvtec', 'cityscapes', 'camvid', 'mapillary', 'idd', 'bdd100k', 'comma10k',
    'goose', 'road_open', 'folders',
)  # fmt: skip
"""The files in sets/, in the order of the table."""


@dataclass(frozen=True)
class EvaluationSet:
    """
    A data set that can be measured.

    name: as it was asked for, split included ('streethazards/test'). title: for people.
    images: names, sequences, files; labels of 'anomaly' and 'inspection' sets are 0 normal,
        1 anomaly, 255 ignored; those of 'closed-set' and 'maritime' sets are class ids.
    kind: one of KINDS. roi: 'road' where the labels are the road and what stands on it alone, so
        that no predicted region is needed; else 'image'.
    licence: what its makers allow.
    track: whose size limits the component metrics take, one of TRACKS ('' = none official).
    classes: the same images with the labels of the known classes (anomalies IGNORED), where
        the set has both; open-set metrics need it.
    panoptic: the same images' segments by index, where the set has them.
    anomalous_images: inspection sets only: True per image that shows a defect.
    """

    name: str
    title: str
    images: ImageList
    kind: str
    roi: str
    licence: str
    track: str = ''
    classes: ImageList | None = None
    panoptic: PanopticLabels | None = None
    anomalous_images: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.roi not in REGIONS or self.track not in TRACKS:
            raise ValueError(f'{self.name}: {self.kind!r}, {self.roi!r} or {self.track!r} unknown')

    def __len__(self) -> int:
        return len(self.images)

    @property
    def labelled(self) -> bool:
        """Whether the images have labels; hidden test sets have none."""
        return bool(self.images.labels)

    @cached_property
    def places(self) -> dict[str, int]:
        """The index of every image by its name."""
        return {name: index for index, name in enumerate(self.images.names)}

    def read(self, index: int) -> tuple[UInt8Array, UInt8Array | None]:
        """
        Return uint8 RGB (H, W, 3) and uint8 labels (H, W), None where the set has no labels.

        Raises DataError naming the image or label file that is missing, broken or wrong.
        """
        image, labels = self.images.read(index)
        return image, labels if self.labelled else None

    def subset(self, indices: Iterable[int]) -> EvaluationSet:
        """Return the set of the images at `indices`, in that order, with all that it has."""
        chosen = tuple(indices)
        return replace(
            self,
            images=self.images.subset(chosen),
            classes=self.classes.subset(chosen) if self.classes else None,
            panoptic=self.panoptic.subset(chosen) if self.panoptic else None,
            anomalous_images=tuple(
                self.anomalous_images[i] for i in chosen if self.anomalous_images
            ),
        )


@dataclass(frozen=True)
class Code:
    """
    What a set's own code does in the place of layouts.

    images: (folder, split) -> the images with the labels of the kind; trained: those of training.
    more: (split, images) -> what else EvaluationSet is made of. members: folder -> the splits that
    NAME/* stands for.
    """

    images: Callable[[Path, str], ImageList]
    trained: Callable[[Path, str], ImageList]
    more: Callable[[str, ImageList], dict[str, Any]] = lambda split, images: {}
    members: Callable[[Path], Sequence[str]] | None = None


CODE = {
    'mvtec': Code(mvtec.load_product, mvtec.load, mvtec.more, mvtec.products),
    'road_open': Code(road_open.load, road_open.load),
}


@dataclass(frozen=True)
class SetEntry:
    """
    One row of the table of sets.

    name: the row's. description: one line. title, kind, roi, licence, track: see EvaluationSet;
        in the title stand {split}, {words} for it without '_', and {folder}.
    folders: its usual folder names under the root of all sets, first match wins.
    splits: what may follow the name after '/', the default first; () = anything.
    classes: a class map as in classes.yaml, or {like: another set's names and colours, ignored};
        None where none is known before the set is there.
    anomalies: ids in the label files of 'normal', 'anomaly' and 'ignored'; the labels to measure
        by, where there are classes, too. trains: whether the set's classes can be trained on.
    panoptic: pattern of the folder of COCO's panoptic labels. layouts: the first that fits counts.
    code: a key of CODE. tree: the expected tree, for messages and documentation.
    """

    name: str
    description: str
    title: str
    kind: str
    folders: tuple[str, ...]
    licence: str
    splits: tuple[Split, ...] = (Split(),)
    roi: str = 'image'
    track: str = ''
    classes: Any = None
    anomalies: Any = None
    trains: bool = True
    panoptic: str = ''
    layouts: tuple[Layout, ...] = ()
    code: str = ''
    tree: str = ''

    @cached_property
    def class_map(self) -> ClassMap | None:
        """The known classes, None where a file of the set says."""
        if self.classes is None:
            return None
        content = dict(self.classes)
        if like := content.pop('like', None):
            other = SETS[like].class_map
            assert other is not None
            pairs = zip(other.names, other.colors, strict=True)
            content['classes'] = [{'name': name, 'color': color} for name, color in pairs]
        return class_map_of(content, self.title)

    @property
    def short_title(self) -> str:
        """The title's part that all splits share."""
        return self.title.partition('{')[0].strip(' ,')

    @property
    def trainable(self) -> bool:
        """Whether the images have classes to train on."""
        return self.trains and (self.classes is not None or not self.anomalies)

    @property
    def split_names(self) -> tuple[str, ...]:
        """The names of the splits, the default first."""
        return tuple(split.name for split in self.splits)

    def images(self, root: Path, split: str) -> ImageList:
        """Return the images of a split with the labels of the kind; the folder exists."""
        if self.code:
            return CODE[self.code].images(root, split)
        images = self._listed(root, split)
        return replace(images, classes=anomaly_map(self.anomalies)) if self.anomalies else images

    def trained(self, root: Path, split: str) -> ImageList:
        """Return the images of a split with the labels that a training takes."""
        return CODE[self.code].trained(root, split) if self.code else self._listed(root, split)

    def _listed(self, root: Path, name: str) -> ImageList:
        split = self.split(name)
        sites = [Site(root, split, layout) for layout in self.layouts]
        site = next((site for site in sites if site.is_here()), None)
        if site is None:
            first = sites[0]
            what, remedy = first.text(first.layout.when), first.text(first.layout.remedy)
            raise DataError(f'{root / what} does not exist; {remedy}')
        frames = site.chosen(self.short_title)
        if site.layout.classes:
            return site.listed(frames, class_file(root / site.text(site.layout.classes)))
        return site.listed(frames, self.class_map or anomaly_map(self.anomalies))

    def split(self, name: str) -> Split:
        """Return a split; one that is not listed is a folder's, where no split says otherwise."""
        for split in self.splits:
            if split.name == name:
                return split
        if all(replace(one, labelled=True) == Split(one.name) for one in self.splits):
            return Split(name)
        known = ', '.join(self.split_names)
        raise ConfigError(f'{self.name} has no split {name!r}; it has {known}')

    def open(self, name: str, folder: Path, split: str) -> EvaluationSet:
        """Open a split, called name/split; DataError saying what is missing, and where."""
        images = self.images(folder, split)
        words = {'split': split, 'words': split.replace('_', ' '), 'folder': folder.name}
        more: dict[str, Any] = {'title': self.title.format(**words).strip()}
        if self.code:
            more |= CODE[self.code].more(split, images)
        if self.anomalies and self.class_map:
            more['classes'] = replace(images, classes=self.class_map)
        if self.panoptic and images.labels:
            more['panoptic'] = PanopticLabels(
                folder / self.panoptic.format(part=split), images.names
            )
        return EvaluationSet(
            name=f'{name}/{split}'.rstrip('/'),
            images=images,
            kind=self.kind,
            roi=self.roi,
            licence=self.licence,
            track=self.track,
            **more,
        )

    def find(self, root: Path, given: str = '') -> Path:
        """Return the given folder or that under `root`; DataError naming places and tree."""
        places = [user_path(given)] if given else [root / name for name in self.folders]
        for place in places:
            if place.is_dir():
                return place
        where = ' or '.join(str(place) for place in places)
        where = (
            f'folder {where} does not exist'
            if given
            else f'expected in {where}; put (or link) it there, or give another root'
        )
        raise DataError(f'{self.description}: {where}\nexpected tree:\n{self.tree}')

    def check_split(self, name: str, split: str) -> str:
        """Return the split, the default for ''; ConfigError for one that the set does not have."""
        names = self.split_names
        if not names:
            return split
        if not split:
            return names[0]
        if split not in names:
            raise ConfigError(f'{name} has no split {split!r}; it has {", ".join(names)}')
        return split


def _rows(name: str) -> dict[str, SetEntry]:
    """Return the rows of a file."""
    path = Path(__file__).parent / 'sets' / f'{name}.yaml'
    content = read_mapping(path, 'data sets')
    tree = content['tree'].strip()
    sets = content['sets'].items()
    return {
        key: build(SetEntry, {'name': key, 'tree': tree, **row}, f'{path}: {key}')
        for key, row in sets
    }


SETS: dict[str, SetEntry] = {key: row for name in FILES for key, row in _rows(name).items()}
LAYOUTS = {name: SETS[name] for name in sorted(SETS) if SETS[name].trainable}
