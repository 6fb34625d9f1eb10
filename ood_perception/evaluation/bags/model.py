# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The node's model without the node: the same bundle, engine and settings from the same values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...bundle.completion import complete
from ...bundle.store import Bundle, default_bundle_path, load_bundle
from ...engines import create_engine
from ...engines.base import Engine, EngineOptions
from ...errors import ConfigError
from ...pipeline import Pipeline
from ...roi import RoiSettings
from ...roi_mask import load_masks
from ...settings import Settings, chosen_classes
from ...tracking import Persistence
from ...types import JsonDict

# The node's parameters that decide what a frame gives, with the node's defaults.
DEFAULTS: dict[str, Any] = {
    'bundle': '',
    'weights': '',
    'engine': 'auto',
    'precision': 'auto',
    'threads': 0,
    'head': '',
    'false_alarm_rate': 0.01,
    'hysteresis_rate': 0.0,
    'minimum_area': 0.0,
    'in_distribution': (),
    'roi.mode': 'ground',
    'roi.classes': (),
    'roi.polygons': (),
    'roi.masks': (),
    'roi.ignore_polygons': (),
    'persistence.window': 1,
    'persistence.required': 1,
    'persistence.mask': False,
    'persistence.longest_gap': 2.0,
    'output_scale': 1.0,
}
_NODE = 'road_anomaly'
_LEVELS = ('/**', '/*', _NODE, f'/{_NODE}')


@dataclass(frozen=True)
class Model:
    """
    A pipeline with what it was made of; close the engine when it is done.

    persistence: when obstacles are announced. scale: size of the output images as a share.
    """

    bundle: Bundle
    engine: Engine
    pipeline: Pipeline
    values: Mapping[str, Any]
    persistence: Persistence

    @property
    def scale(self) -> float:
        return float(self.values['output_scale'])

    def to_json(self) -> JsonDict:
        """Return what the results depend on."""
        manifest = self.bundle.manifest
        return {
            'bundle': {'name': manifest.name, 'sha256': self.bundle.sha256},
            'engine': dict(self.engine.description),
            'compiled_classes': list(self.engine.compiled_classes),
            'in_distribution': list(chosen_classes(manifest, self.pipeline.settings)),
            'settings': {
                name: list(value) if isinstance(value, tuple) else value
                for name, value in self.values.items()
                if name not in ('bundle', 'weights', 'engine', 'precision', 'threads')
            },
        }


def read_parameters(path: Path) -> dict[str, Any]:
    """
    Return the values of DEFAULTS that a ROS parameter file sets; others in it do not matter here.

    Sections '/**' and 'road_anomaly' are read. Raises ConfigError for a file that is none.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
        sections = [content[level]['ros__parameters'] for level in _LEVELS if level in content]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise ConfigError(
            f'--params {path} is no ROS parameter file ({type(error).__name__} {error}): take '
            'config/road_anomaly.yaml as the pattern'
        ) from error
    values: dict[str, Any] = {}
    for section in sections:
        values.update(_flat(section))
    return {name: _like(name, values[name], path) for name in DEFAULTS if name in values}


def open_model(given: Mapping[str, Any], tell: Callable[[str], None], max_batch: int = 1) -> Model:
    """
    Load, complete, compile and check as the node does.

    given: some of DEFAULTS. max_batch: most frames of a run. Raises an OodPerceptionError that
    says what is wrong.
    """
    values = {**DEFAULTS, **given}
    settings, persistence = _settings(values), _persistence(values)
    source = Path(values['weights']) if values['weights'] else None
    bundle = complete(load_bundle(values['bundle'] or default_bundle_path()), source, tell)
    options = EngineOptions(
        runtime=values['engine'],
        precision=values['precision'],
        threads=values['threads'],
        head=values['head'],
        compiled_classes=_classes_to_compile(bundle, values['head'], settings),
        max_batch=max_batch,
    )
    engine = create_engine(bundle, options)
    try:
        return Model(bundle, engine, Pipeline(bundle, engine, settings), values, persistence)
    except BaseException:
        engine.close()
        raise


def _classes_to_compile(bundle: Bundle, name: str, settings: Settings) -> tuple[str, ...]:
    """Return the chosen classes where the head has one model per class, as the node compiles."""
    manifest = bundle.manifest
    head = next((head for head in manifest.heads if head.name == name), manifest.heads[0])
    if head.selection != 'min':
        return ()
    chosen = chosen_classes(manifest, settings)
    without = [name for name in chosen if name not in head.compiled_classes]
    if without:
        raise ConfigError(
            f'in_distribution {", ".join(without)}: bundle {manifest.name} has no model of it; '
            f'choose from {", ".join(head.compiled_classes)}'
        )
    return tuple(name for name in head.compiled_classes if name in chosen)


def _settings(values: Mapping[str, Any]) -> Settings:
    # The node's own reading of polygons; it knows no ROS library.
    from ood_perception.ros.polygons import parse_polygons

    mode = values['roi.mode']
    return Settings(
        false_alarm_rate=values['false_alarm_rate'],
        in_distribution=tuple(values['in_distribution']),
        roi=RoiSettings(
            mode=mode,
            classes=tuple(values['roi.classes']),
            polygons=parse_polygons('roi.polygons', values['roi.polygons']),
            ignore_polygons=parse_polygons('roi.ignore_polygons', values['roi.ignore_polygons']),
            masks=load_masks('roi.masks', values['roi.masks']) if mode == 'mask' else {},
        ),
        minimum_area=values['minimum_area'],
        hysteresis_rate=values['hysteresis_rate'],
    )


def _persistence(values: Mapping[str, Any]) -> Persistence:
    return Persistence(
        window=values['persistence.window'],
        required=values['persistence.required'],
        mask=values['persistence.mask'],
        longest_gap=values['persistence.longest_gap'],
    )


def _flat(section: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    """Return nested parameters by dotted names."""
    values: dict[str, Any] = {}
    for name, value in section.items():
        if isinstance(value, dict):
            values.update(_flat(value, f'{prefix}{name}.'))
        else:
            values[f'{prefix}{name}'] = value
    return values


def _like(name: str, value: Any, path: Path) -> Any:
    """Return a value of the default's type; ConfigError otherwise."""
    default = DEFAULTS[name]
    if isinstance(default, tuple) and isinstance(value, list):
        return tuple(item for item in value if item)  # ['']: an empty list of a ROS file
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not type(default):
        raise ConfigError(f'--params {path}: {name} is {value!r}, expected a {type(default)}')
    return value
