# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
From clean frames alone: how often false obstacles come at which parameters, and which to choose.

Clean means: nothing unknown in the images. Known classes outside in_distribution (cars, people)
are flagged by design; with --labels only obstacles that are mostly in-distribution by the labels
count, without labels all do. Every frame's obstacles count anew unless --persistence says that
the frames follow each other: then an obstacle counts once, when it is announced.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ood_perception.bundle.manifest import Manifest
from ood_perception.errors import ConfigError
from ood_perception.files import check_writable
from ood_perception.image.geometry import geometry_for
from ood_perception.loader import Model, open_model
from ood_perception.metrics.false_obstacles import PATCHES, RATES, AlarmCounter, normal_cells
from ood_perception.metrics.operating_point import Wanted, alarm_rates
from ood_perception.parameters.options import add_parameters, chosen_parameters
from ood_perception.pipeline import Pipeline
from ood_perception.postprocess.roi import MODES, CameraPolygons, RoiSettings
from ood_perception.postprocess.tracking import Persistence
from ood_perception.settings import chosen_classes
from ood_perception.texts import tell
from ood_perception.types import Frame

from .clean_frames import CleanFrames, open_clean
from .operating_point_report import Answer, answer, write_report
from .options import add_root_argument, sets_root

_TELL_EVERY = 50
# Options of the command line that replace a parameter of the node.
_PARAMETERS = ('in_distribution', 'views', 'engine', 'precision', 'threads', 'weights')
_DRAWN = ('polygon', 'mask')  # need a drawing, which parameter files hold


def patch_area(manifest: Manifest, frame: Frame) -> float:
    """Return the camera pixels that one patch of the backbone covers on this image."""
    size = manifest.input
    shape = (frame.image.shape[0], frame.image.shape[1])
    geometry = geometry_for(shape, (size.height, size.width), size.policy, size.anchor)
    return float(size.patch**2 / (geometry.scale_x * geometry.scale_y))


def usual_areas(patch: float) -> tuple[float, ...]:
    """Return minimum areas for a patch of this many camera pixels, rounded to two digits."""
    return tuple(float(f'{share * patch:.2g}') for share in PATCHES)


def count_source(pipeline: Pipeline, source: CleanFrames, counter: AlarmCounter) -> None:
    """Run the pipeline once over a source and count its false obstacles."""
    manifest = pipeline.manifest
    names = [spec.name for spec in manifest.classes]
    chosen = [names.index(name) for name in chosen_classes(manifest, pipeline.settings)]
    for number, (frame, labels) in enumerate(source.frames(), start=1):
        detection = pipeline.run([frame])[0]
        normal = None
        if labels is not None:
            size = pipeline.grid_size
            normal = normal_cells(labels, chosen, len(names), detection.geometry, size)
        counter.add(detection, normal)
        if number % _TELL_EVERY == 0:
            tell(f'{source.name}: {number} of {source.count} frames')


def parser() -> argparse.ArgumentParser:
    """Return the parser of `trainer operating-point`."""
    result = argparse.ArgumentParser(description=__doc__)
    add = result.add_argument
    add('bundle', nargs='?', help='folder, .zip or shipped name; default: the road')
    add('--clean', required=True, help='camvid/<split>, a folder of images, or a ROS 2 bag')
    add('--check', help='held-out clean frames, same forms: predicted against observed')
    add('--labels', nargs='?', const='', help='count only what the labels call in-distribution: '
        "alone for a split's own, or a folder of PNGs with the bundle's class ids")  # fmt: skip
    add_root_argument(result)
    add('--wanted', default='1/hour', help="acceptable false obstacles, default '1/hour'")
    add('--fps', type=float, default=0.0, help='frames a second that the node will process; '
        "default: the bag's own, 10 for images")  # fmt: skip
    add('--persistence', nargs=2, type=int, metavar=('M', 'N'), help='the frames follow each '
        'other: count an obstacle once, announced after m of n frames (1 5: at once)')  # fmt: skip
    add('--block', type=int, default=10, help='consecutive frames that are taken as one draw')
    add('--rates', nargs='+', type=float, default=RATES, help='false-alarm rates of the grid')
    add('--areas', nargs='+', type=float, default=(), help='minimum areas in camera pixels; '
        f'default: {", ".join(f"{p:g}" for p in PATCHES)} patches')  # fmt: skip
    add('--camera', default='', help='of --params: the camera that took the images')
    add('--roi', dest='roi_mode', choices=[m for m in MODES if m not in _DRAWN], help='default: '
        'as --params, or ground')  # fmt: skip
    add_parameters(result, _PARAMETERS)
    add('--out', type=Path, default=Path('out/operating_point'), help='folder of the report')
    return result


def region_for(roi: RoiSettings, source: CleanFrames, camera: str) -> RoiSettings:
    """
    Return the region of interest with what holds for the source's camera.

    Frames of images are named after their drive, not after the camera that polygons and masks
    name. Raises ConfigError where it is not known which camera took them.
    """
    named = {*roi.polygons, *roi.ignore_polygons, *roi.masks} - {''}
    if camera and camera not in named:
        raise ConfigError(f'--camera {camera}: --params names {sorted(named) or "no camera"}')
    if not named or (not camera and named <= {*source.cameras}):
        return roi
    if not camera:
        raise ConfigError(
            f'--params has polygons or masks of the cameras {sorted(named)}: say with --camera '
            f'which of them took {source.name}'
        )
    mask = roi.masks.get(camera, roi.masks.get(''))
    return replace(
        roi,
        polygons=_of_camera(roi.polygons, camera),
        ignore_polygons=_of_camera(roi.ignore_polygons, camera),
        masks={} if mask is None else {'': mask},
    )


def _of_camera(polygons: CameraPolygons, camera: str) -> CameraPolygons:
    return {'': (*polygons.get('', ()), *polygons.get(camera, ()))}


def run(options: argparse.Namespace) -> Answer:
    """Do what the command line asks for; write the report and return the answer."""
    check_writable(options.out)
    wanted = Wanted.parse(options.wanted)
    asked = Persistence(*reversed(options.persistence)) if options.persistence else None
    if options.fps < 0:
        raise ConfigError(f'--fps {options.fps:g}: give frames a second above 0')
    values = chosen_parameters(options, ('bundle', 'roi.mode', *_PARAMETERS), tell)
    model = open_model(values, tell)
    with model.engine:
        served = model.persistence if model.persistence.active else None
        return _answer(options, model, wanted, asked or served)


def _answer(
    options: argparse.Namespace, model: Model, wanted: Wanted, persistence: Persistence | None
) -> Answer:
    manifest, pipeline = model.bundle.manifest, model.pipeline
    root = sets_root(options)
    names = tuple(spec.name for spec in manifest.classes)
    texts = [options.clean, *([options.check] if options.check else [])]
    sources = [open_clean(t, root, options.fps or 10.0, options.labels, names) for t in texts]
    fps = options.fps or sources[0].fps or 10.0
    patch = patch_area(manifest, next(sources[0].frames())[0])
    rates, areas = tuple(options.rates), tuple(options.areas) or usual_areas(patch)
    settings, measured = pipeline.settings, []
    hysteresis = settings.hysteresis_rate
    for source in sources:
        roi = region_for(settings.roi, source, options.camera)
        pipeline.settings = replace(settings, roi=roi)
        counter = AlarmCounter(rates, areas, persistence, hysteresis)
        count_source(pipeline, source, counter)
        measured.append(alarm_rates(counter.result(), options.block))
    result = answer(measured[0], wanted, fps, patch, persistence, hysteresis)
    facts: dict[str, Any] = {
        'bundle': manifest.name,
        'bundle_sha256': model.bundle.sha256,
        'clean': sources[0].name,
        'labels': sources[0].labelled,
        'in_distribution': list(chosen_classes(manifest, settings)),
        'roi': settings.roi.mode,
        'parameters': str(options.params) if options.params else None,
        'camera': options.camera or None,
        'hysteresis_rate': hysteresis,
        'fps': fps,
        'persistence': [persistence.required, persistence.window] if persistence else None,
    }
    checked = (sources[1].name, measured[1]) if options.check else None
    write_report(options.out, facts, measured[0], result, checked)
    return result


def main(arguments: Sequence[str]) -> int:
    """Run `trainer operating-point`; 1 when the wanted rate cannot be stated."""
    options = parser().parse_args(arguments)
    result = run(options)
    print(result.text)
    print(f'report: {options.out / "operating_point.md"}')
    return 0 if result.choice else 1
