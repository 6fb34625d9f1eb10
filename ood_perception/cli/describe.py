# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What a bundle is, in plain values and as text: for people who must decide whether to use it."""

from __future__ import annotations

import cv2

from ood_perception.adapt.adaptation import advice, rate_line
from ood_perception.bundle.manifest import HeadSpec
from ood_perception.bundle.store import Bundle
from ood_perception.bundle.weights.completion import MAP_NAME, read_map
from ood_perception.image.geometry import camera_window
from ood_perception.image.views import ViewSpec
from ood_perception.json_files import json_text
from ood_perception.postprocess.calibration import read_samples
from ood_perception.texts import printable
from ood_perception.types import JsonDict, UInt8Array

_COLORS = ((0, 229, 255), (255, 64, 0), (64, 255, 64), (255, 0, 255))


def draw_views(bundle: Bundle, image: UInt8Array) -> UInt8Array:
    """Return a copy of an image, uint8 (H, W, 3) RGB, with what the network sees outlined."""
    spec = bundle.manifest.input
    names = ('whole', *(printable(view.name) for view in spec.views))
    drawn = image.copy()
    height, width = image.shape[:2]
    line = max(1, round(height / 270))
    for number, geometry in enumerate(spec.geometries((height, width))):
        rows, columns = camera_window(geometry)
        color = _COLORS[number % len(_COLORS)]
        low, high = (columns.start, rows.start), (columns.stop - 1, rows.stop - 1)
        cv2.rectangle(drawn, low, high, color, line)
        place = (low[0] + 2 * line, low[1] + 12 * line)
        cv2.putText(drawn, names[number], place, cv2.FONT_HERSHEY_SIMPLEX, line / 2.5, color, line)
    return drawn


def summarise(bundle: Bundle) -> JsonDict:
    """Return manifest, place, checksum, total bytes and the origin of weights not inside."""
    return {
        'path': str(bundle.root),
        'sha256': bundle.sha256,
        'bytes': sum(spec.size for spec in bundle.manifest.files.values()),
        'weights': _weights(bundle),
        'held_out_pixels': {
            head: {name: sample.pixels([name]) for name in sample.classes}
            for head, sample in read_samples(bundle).items()
        },
        'manifest': bundle.manifest.to_json(),
    }


def _weights(bundle: Bundle) -> JsonDict:
    """Return where the external weights are or come from."""
    stages = [stage for stage in bundle.manifest.stages if stage.external_data]
    if not stages:
        return {'place': 'inside the graphs'}
    if MAP_NAME not in bundle.manifest.files:
        return {'place': 'in the bundle'}
    origin = read_map(bundle.path(MAP_NAME)).origin
    place = 'put in place when it is loaded' if bundle.missing_weights else 'completed'
    return {'place': place, 'origin': origin}


def as_text(bundle: Bundle) -> str:
    """Return the summary for a terminal."""
    manifest, size = bundle.manifest, bundle.manifest.input
    summary = summarise(bundle)
    sections = [
        _section('bundle', [f'{manifest.name}, format {manifest.format}']),
        _section('place', [summary['path']]),
        _section('sha256', [f'{summary["sha256"]}, {len(manifest.files)} files match']),
        _section('size', [f'{summary["bytes"] / 1e6:.2f} MB']),
        _section('input', [f'{size.height} x {size.width}, patch {size.patch}, {size.policy}']),
        *([_section('views', [_view_line(view) for view in size.views])] if size.views else []),
        _section('weights', _weights_lines(summary['weights'])),
        _section('classes', _class_lines(bundle)),
        _section('heads', [_head_line(head, bundle) for head in manifest.heads]),
        _section('precisions', _precision_lines(bundle)),
        _section('calibration', _value_lines(_without_rates(manifest.calibration))),
        *_rate_sections(manifest.calibration),
        *_held_out_sections(bundle),
        _section('provenance', _value_lines(manifest.provenance)),
        _section(
            'files',
            [
                f'{name}  {spec.size} bytes  sha256 {spec.sha256}'
                for name, spec in sorted(manifest.files.items())
            ],
        ),
        _section('licences and notices', list(manifest.licences) or ['none stated']),
    ]
    return '\n'.join(printable(line) for section in sections for line in section)


def _section(title: str, lines: list[str]) -> list[str]:
    if len(lines) == 1 and len(title) < 12:
        return [f'{title:<12}{lines[0]}']
    return [title, *(f'  {line}' for line in lines)]


def _view_line(view: ViewSpec) -> str:
    place = f'({view.center_x:g}, {view.center_y:g})'
    return f'{view.name}: {view.width:.0%} of the width about {place} of the frame'


def _weights_lines(weights: JsonDict) -> list[str]:
    origin = weights.get('origin')
    if origin is None:
        return [weights['place']]
    name = f'{origin.get("package", "")} {origin.get("version", "")}'.strip()
    return [
        f'{weights["place"]}: from {name or origin.get("kind")}, {origin["file"]}, '
        f'{origin["size"] / 1e6:.1f} MB, licence {origin.get("licence", "not stated")}'
    ]


def _class_lines(bundle: Bundle) -> list[str]:
    manifest = bundle.manifest
    lines = []
    for index, spec in enumerate(manifest.classes):
        notes = [
            note
            for note, holds in (
                ('normal', spec.name in manifest.in_distribution),
                ('ground', spec.name in manifest.ground_classes),
                ('no model of its own', not spec.modelled),
            )
            if holds
        ]
        lines.append(f'{index:>3} {spec.name}' + (f' ({", ".join(notes)})' if notes else ''))
    return lines


def _head_line(head: HeadSpec, bundle: Bundle) -> str:
    rows, columns = bundle.manifest.input.grid(head.upsampling)
    return (
        f'{head.name}: selection {head.selection}, calibration {head.calibration}, '
        f'score grid {rows} x {columns}, scores for {", ".join(head.compiled_classes)}'
    )


def _precision_lines(bundle: Bundle) -> list[str]:
    """Return what each reduced precision costs, and how much that is held against."""
    lines = []
    for name, spec in bundle.manifest.precisions.items():
        low, high = spec.interval
        parts = [f'{spec.average_precision_loss:.2f} points of AP lost [{low:.2f}, {high:.2f}]']
        if 'relative_time_of_backbone' in spec.measured:
            parts.append(f'backbone time {spec.measured["relative_time_of_backbone"]} of float32')
        if 'data' in spec.measured:
            parts.append(f'{spec.measured.get("images")} images of {spec.measured["data"]}')
        lines.append(f'{name}: {", ".join(parts)}')
    return lines or ['bf16 and int8 not measured: auto takes bf16 where the CPU has it, else f32']


def _held_out_sections(bundle: Bundle) -> list[list[str]]:
    """Return what is to be said of classes with too few held-out pixels, head by head."""
    lines = []
    for head, sample in read_samples(bundle).items():
        for name in sample.classes:
            count, least = sample.pixels([name]), sample.least_rate([name])
            if count and least:
                lines.append(f'{head}: {name} alone has {count} held-out pixels, which bound a '
                             f'false alarm rate of {least:.2g} or more')  # fmt: skip
            elif least:
                lines.append(f'{head}: {name} has no held-out pixels and is not calibrated')
    return [_section('held-out pixels', lines)] if lines else []


def _without_rates(calibration: JsonDict) -> JsonDict:
    return {k: value for k, value in calibration.items() if k not in ('rates', 'levels')}


def _rate_sections(calibration: JsonDict) -> list[list[str]]:
    """Return what target rates gave on frames that were left out, of an adapted bundle."""
    if 'adapted_to' not in calibration:
        return []
    lines = [rate_line(rate) for rate in calibration['rates']]
    doubt = advice(calibration['rates'], calibration['frames'])
    return [_section('rates', [*lines, *([doubt] if doubt else [])])]


def _value_lines(values: JsonDict) -> list[str]:
    lines = [
        f'{key}: {value if isinstance(value, str) else json_text(value, indent=None)}'
        for key, value in values.items()
    ]
    return lines or ['none stated']
