# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Label sets mapped to one taxonomy: 'cityscapes@road' has the classes of labels/road_taxonomy.yaml,
'camvid@open_road' those of the open roads, road against the rest.

A bundle that is fitted on one set then knows classes of the same names, ids and colours as one of
another set, and can be measured on any of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from ood_perception.errors import ConfigError, DataError
from ood_perception.yaml_files import read_mapping

from ..data.class_map import ClassMap, Color, color_of
from ..data.images import IGNORED, ImageList

SIGN = '@'
_FOLDER = Path(__file__).parent / 'labels'
TAXONOMIES = ('road', 'open_road')


@dataclass(frozen=True)
class Taxonomy:
    """
    classes: name -> RGB, 0..255.

    sets: name of a set -> class, or 'ignored' -> names of the set's own classes.
    """

    classes: dict[str, Color]
    sets: dict[str, dict[str, list[str]]]

    def places(self, of_set: str) -> dict[str, int]:
        """Return the class, 0 .. C-1 or IGNORED, of every name of a set."""
        order = {**{name: place for place, name in enumerate(self.classes)}, 'ignored': IGNORED}
        return {own: order[name] for name, owns in self.sets[of_set].items() for own in owns}


@cache
def load_taxonomy(name: str) -> Taxonomy:
    """Return a taxonomy; ConfigError where there is none of that name."""
    if name not in TAXONOMIES:
        raise ConfigError(f'unknown taxonomy {name!r}; known are {", ".join(TAXONOMIES)}')
    content = read_mapping(_FOLDER / f'{name}_taxonomy.yaml', 'taxonomy')
    colors = {name: color_of(color, name) for name, color in content['classes'].items()}
    return Taxonomy(colors, content['sets'])


def mapped(images: ImageList, of_set: str, name: str) -> ImageList:
    """
    Return the same images with the classes of a taxonomy, '' = as they are.

    Raises ConfigError for a taxonomy that does not list the set, DataError for one that lacks
    names of its classes.
    """
    if not name:
        return images
    taxonomy = load_taxonomy(name)
    if of_set not in taxonomy.sets:
        known = ', '.join(taxonomy.sets)
        raise ConfigError(f'taxonomy {name} does not list {of_set!r}; it lists {known}')
    places, old = taxonomy.places(of_set), images.classes
    lacking = [own for own in old.names if own not in places]
    if lacking:
        raise DataError(f'taxonomy {name} lists no {", ".join(lacking)} of {of_set}')
    new = [places[own] for own in old.names]
    ids = {key: known if known == IGNORED else new[known] for key, known in old.ids.items()}
    colors = tuple((c, k if k == IGNORED else new[k]) for c, k in old.label_colors)
    names, shown = tuple(taxonomy.classes), tuple(taxonomy.classes.values())
    return replace(images, classes=ClassMap(names, shown, ids, colors))
