# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
A report as one HTML file without scripts or network: a template, filled with values.

Templates (`templates/`) hold markup and prose, Python gives values alone. Whatever comes in is
escaped, so a file name or an error message may hold any character; only drawings of plots.py are
put in as they are.
"""

from __future__ import annotations

import base64
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from ood_perception.errors import required
from ood_perception.evaluation.results import write_bytes, write_text
from ood_perception.postprocess.overlay import encode_jpeg
from ood_perception.requirements import install_command
from ood_perception.types import UInt8Array

from .tables import percent

if TYPE_CHECKING:
    from jinja2 import Environment

IMAGE_WIDTH = 640


@cache
def environment() -> Environment:
    """Return the environment that fills templates; DependencyError without jinja2."""
    jinja2 = required(
        'jinja2',
        f'reports need jinja2: {install_command("report")}, or apt install python3-jinja2',
    )
    result: Environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / 'templates'),
        autoescape=jinja2.select_autoescape(['html.j2']),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    result.globals['percent'] = percent
    result.filters |= {
        'anchor': anchor_of,
        'fraction': fraction,
        'line': one_line,
        'number': '{:g}'.format,
    }
    return result


def render(template: str, **values: Any) -> str:
    """Return a template of `templates/` filled with values; text is escaped in *.html.j2."""
    return environment().get_template(template).render(values)


def write_page(path: Path, template: str, **values: Any) -> Path:
    """Write a filled template, whole or not at all; returns its path. DataError where it fails."""
    write_text(path, render(template, **values))
    return path


def anchor_of(title: str) -> str:
    """Return the name that a link to a section uses (`#name`)."""
    return '-'.join(''.join(c if c.isalnum() else ' ' for c in title.lower()).split())


def fraction(value: float | None, places: int = 1) -> str:
    """Write a fraction as '83.1 %', '-' where it is undefined."""
    return '-' if value is None else f'{100 * value:.{places}f} %'


def one_line(text: str) -> str:
    """Return a sentence, which a template may break where it likes, as a line of a text file."""
    return ' '.join(text.split()) + '\n'


def save_jpeg(
    folder: Path, name: str, image: UInt8Array, width: int = IMAGE_WIDTH, quality: int = 88
) -> str:
    """Write an RGB image, `width` pixels wide; return its name beside the page. DataError."""
    write_bytes(folder / name, _small_jpeg(image, width, quality))
    return name


def embedded(image: UInt8Array, width: int = IMAGE_WIDTH, quality: int = 85) -> str:
    """Return an image, uint8 (H, W, 3) RGB, as the source of an image that needs no file."""
    data = base64.b64encode(_small_jpeg(image, width, quality)).decode('ascii')
    return f'data:image/jpeg;base64,{data}'


def _small_jpeg(image: UInt8Array, width: int, quality: int) -> bytes:
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    shrinks = width < image.shape[1]
    small = cv2.resize(
        image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )
    return encode_jpeg(np.asarray(small, np.uint8), quality).tobytes()
