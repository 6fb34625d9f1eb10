# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Train one bundle of a study, taking over what the study's other trainings have made already.

Trainings share classifier, segmenter, flow and fit where their recipes agree on all that these
depend on. What is up to date is kept: a build that was stopped goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from ood_perception.bundle.manifest import Manifest

from ..artefacts import adopt
from ..config import Recipe, digest
from ..heads.fusion_stages import member_recipes
from ..stages import Trainer

# What an artefact depends on: sections of the recipe. A wrong guess costs time, never truth: every
# artefact carries the key of what it came from, and is made again where that does not fit.
_SHARED = {
    'classifier': ('backbone', 'data', 'view', 'classifier', 'seed'),
    'fit': ('backbone', 'data', 'view', 'classifier', 'seed', 'patches', 'condensation'),
    'segmenter': ('backbone', 'data', 'view', 'views', 'segmenter', 'seed'),
    'flow': ('data', 'view', 'views', 'flow', 'seed'),
}
# kinds of heads whose folder 'fit' holds PixOOD's
_PIXOOD_FITS = ('pixood', 'baseline')


def build_bundle(
    recipe: Recipe, folder: Path, shared: Path, progress: bool = True, cache: Path | None = None
) -> Manifest:
    """
    Train a recipe into folder/bundle; return what the bundle says of itself.

    shared: what trainings of one study take over from each other. cache: of weights and tokens.
    """
    for name, place in _parts(recipe, folder):
        adopt(shared / name, place)
    manifest = Trainer(recipe, folder, cache=cache, progress=progress).pack()
    for name, place in _parts(recipe, folder):
        adopt(place, shared / name)
    return manifest


def _parts(recipe: Recipe, folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the name among what is shared, and the training's own place, of every artefact."""
    for part, sections in _SHARED.items():
        yield f'{part}-{_signature(recipe, part, sections)}', folder / part
    if recipe.head.kind == 'fusion':
        for kind, member in member_recipes(recipe).items():
            name = f'fit-{_signature(member, "fit", _SHARED["fit"])}'
            yield name, folder / 'members' / kind / 'fit'


def _signature(recipe: Recipe, part: str, sections: Sequence[str]) -> str:
    """Hash the sections of a recipe that an artefact depends on."""
    values, kind = asdict(recipe), recipe.head.kind
    used = {name: dict(values[name]) if name == 'data' else values[name] for name in sections}
    for text in ('description', 'licence'):  # recipes that differ in words alone share
        used.get('data', {}).pop(text, None)
    if part == 'fit' and kind not in _PIXOOD_FITS:
        used['kind'] = kind
    return digest(used)[:16]
