# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""One training recipe: typed, read from YAML; wrong keys and values are refused by name."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ood_perception.errors import ConfigError
from ood_perception.typed_values import build
from ood_perception.yaml_files import parse_yaml, read_yaml

from .artifacts import digest
from .augment.on_the_fly import OnTheFlySettings
from .augment.outlier_sources import OutlierConfig
from .augment.pasting import MixSettings
from .augment.views import ViewSettings
from .backbones.weights import SUFFIXES
from .features import View
from .heads import head_kind
from .heads.base import HeadConfig
from .heads.baselines.config import BaselineConfig
from .heads.distilled.config import DistilledConfig
from .heads.fusion.config import FusionConfig
from .heads.knn.config import KnnConfig
from .heads.nflowjs.config import NflowjsConfig
from .heads.nflowjs.flow import FlowConfig
from .heads.pixood.config import CondensationSettings
from .heads.rpl.config import RplConfig
from .heads.uem.config import UemConfig
from .nets.patch_classifier import ClassifierConfig
from .nets.patches import PatchSettings
from .nets.segmenter import SegmenterConfig
from .training.finetuning import FinetuningConfig
from .training_data import BackboneConfig, DataConfig


def change_value(content: Any, change: str) -> None:
    """Apply one 'section.key=value' to the content of a recipe; ConfigError says what is wrong."""
    place, separator, text = change.partition('=')
    *sections, key = place.split('.')
    for section in sections:
        content = content.setdefault(section, {}) if isinstance(content, dict) else None
    if not separator or not isinstance(content, dict):
        raise ConfigError(f'cannot set {change!r}: give section.key=value, such as seed=1')
    content[key] = parse_yaml(text, f'cannot set {change!r}: the value')


GOLDEN = ('demo_road', 'demo_sea', 'images')  # the first two: golden.DEMO_IMAGES


@dataclass(frozen=True)
class BundleConfig:
    """
    What the bundle says.

    in_distribution: classes that count as normal by default, () = all that have a model.
    ground_classes: their hull is the region of interest. ship_weights: put the backbone's weights
        into the bundle.
    anchor: where a padded camera image is put when serving.
    golden: what the golden vectors show: the demo's 'demo_road' or 'demo_sea' (both free to
        publish) or the first and the last of the calibration 'images'.
    """

    in_distribution: tuple[str, ...]
    ground_classes: tuple[str, ...]
    ship_weights: bool = False
    anchor: float = 0.5
    golden: str = 'demo_road'

    def __post_init__(self) -> None:
        if self.golden not in GOLDEN:
            raise ConfigError(f'bundle golden {self.golden!r}: choose one of {", ".join(GOLDEN)}')


# Recipes from before there were such options say nothing of them.
_LATER = (
    ('data', 'calibration_spacing', 0),
    ('data', 'calibration_blocks', 1),
    ('backbone', 'name', 'vit'),
    ('backbone', 'stride', 16),
    ('backbone', 'patch', 0),
    ('rpl', 'network', 'segmenter'),
    ('knn', 'images', 0),
    ('outliers', 'together', 1),
    ('outliers', 'licences', []),
)
# Sections that every recipe is read by; all others belong to heads.
_COMMON = ('data', 'bundle', 'backbone', 'finetuning', 'view')


@dataclass(frozen=True)
class Recipe:
    """
    All that a bundle follows from.

    name: of the bundle. seed: of every section that has one (it replaces theirs).
    The sections from classifier to fusion belong to kinds of heads; the others' are not read.
    """

    name: str
    data: DataConfig
    bundle: BundleConfig
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    finetuning: FinetuningConfig = field(default_factory=FinetuningConfig)
    view: View = field(default_factory=View)
    classifier: ClassifierConfig = field(default_factory=ClassifierConfig)
    patches: PatchSettings = field(default_factory=PatchSettings)
    condensation: CondensationSettings = field(default_factory=CondensationSettings)
    head: HeadConfig = field(default_factory=HeadConfig)
    views: ViewSettings = field(default_factory=ViewSettings)
    segmenter: SegmenterConfig = field(default_factory=SegmenterConfig)
    outliers: OutlierConfig = field(default_factory=OutlierConfig)
    mixes: MixSettings = field(default_factory=MixSettings)
    uem: UemConfig = field(default_factory=UemConfig)
    rpl: RplConfig = field(default_factory=RplConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    nflowjs: NflowjsConfig = field(default_factory=NflowjsConfig)
    knn: KnnConfig = field(default_factory=KnnConfig)
    baseline: BaselineConfig = field(default_factory=BaselineConfig)
    distilled: DistilledConfig = field(default_factory=DistilledConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    on_the_fly: OnTheFlySettings = field(default_factory=OnTheFlySettings)
    seed: int = 42

    def __post_init__(self) -> None:
        for name, section in self._sections().items():
            if any(item.name == 'seed' for item in dataclasses.fields(section)):
                object.__setattr__(self, name, dataclasses.replace(section, seed=self.seed))

    def _sections(self) -> dict[str, Any]:
        """Return the recipe's sections by name."""
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if dataclasses.is_dataclass(value)}

    def head_sections(self) -> dict[str, Any]:
        """Return the sections that the head is read from, by name; a fusion's are its members'."""
        own = head_kind(self.head.kind).sections
        members = self.fusion.members if 'fusion' in own else ()
        names = dict.fromkeys(n for m in members for n in head_kind(m.kind).sections)
        return {name: getattr(self, name) for name in ('head', *names, *own)}

    def all_data(self) -> tuple[DataConfig, ...]:
        """Return the section data, then those of a fusion's members that have their own."""
        members = self.fusion.members if self.head.kind == 'fusion' else ()
        return (self.data, *(member.data for member in members if member.data is not None))

    def sha256(self) -> str:
        """Return the sha256 of what the recipe says, wherever its files lie."""
        return digest(self.portable())

    def portable(self) -> dict[str, Any]:
        """Return JSON values without places of this machine: a weight file by its name alone."""
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        values['data'].pop('root')
        for member in values['fusion']['members']:
            if member['data'] is None:
                del member['data']
            else:
                member['data'].pop('root')
        for section in set(self._sections()) - {*_COMMON, *self.head_sections()}:
            del values[section]
        if not self.finetuning.epochs:
            del values['finetuning']
        for section, option, plain in _LATER:
            if values.get(section, {}).get(option) == plain:
                del values[section][option]
        weights = Path(self.backbone.weights)
        if weights.suffix in SUFFIXES:
            values['backbone']['weights'] = weights.name
        return values


def load_recipe(path: Path, changes: Sequence[str] = ()) -> Recipe:
    """
    Read a recipe from YAML.

    A key `base` names a recipe beside it, whose sections hold wherever this one says nothing.
    changes: 'section.key=value' overrides, values in YAML.
    Raises ConfigError naming the file, the key and the known keys or the expected type.
    """
    content = _read(path)
    for change in changes:
        change_value(content, change)
    return build(Recipe, content, str(path))


def _read(path: Path, above: tuple[Path, ...] = ()) -> Any:
    """Return a recipe's content on that of its base; above: the recipes that it is a base of."""
    content = read_yaml(path, 'recipe')
    if not isinstance(content, dict) or 'base' not in content:
        return content
    base = content.pop('base')
    if not isinstance(base, str) or (path.parent / base).resolve() in (path.resolve(), *above):
        raise ConfigError(f'{path}: base {base!r}: give the name of another recipe beside it')
    return _laid_on(_read(path.parent / base, (*above, path.resolve())), content)


def _laid_on(below: Any, content: Any) -> Any:
    """Return values where `content`, section by section, goes before `below`."""
    if not isinstance(below, dict) or not isinstance(content, dict):
        return content
    return {**below, **{key: _laid_on(below.get(key), value) for key, value in content.items()}}
