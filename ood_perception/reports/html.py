# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
A report as one HTML file: sections, tables and pictures, without scripts, network or templates.

Text is escaped wherever it comes in, unless a function of this module made it (type Html). So a
file name or an error message may hold any character.

    page = [facts({'bundle': name}), section('Curves', [table(header, rows)], how_to_read='...')]
    write_page(folder / 'index.html', 'Evaluation', page)
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from ood_perception.errors import DataError
from ood_perception.files import make_file
from ood_perception.postprocess.overlay import encode_jpeg
from ood_perception.types import UInt8Array

PICTURE_WIDTH = 640


class Html(str):
    """Text that is HTML already and must not be escaped again."""

    __slots__ = ()


def escaped(text: str) -> Html:
    """Return text as HTML; Html stays as it is."""
    return text if isinstance(text, Html) else Html(html.escape(text))


def joined(parts: Iterable[str], between: str = '\n') -> Html:
    """Put parts behind each other."""
    return Html(between.join(escaped(part) for part in parts))


def element(tag: str, content: str, kind: str = '') -> Html:
    """Return one element; kind: its CSS class, such as good, bad, dim, legend."""
    attribute = f' class="{html.escape(kind)}"' if kind else ''
    return Html(f'<{tag}{attribute}>{escaped(content)}</{tag}>')


def paragraph(text: str, kind: str = '') -> Html:
    """Return a paragraph."""
    return element('p', text, kind)


def bullets(lines: Iterable[str]) -> Html:
    """Return a list of points."""
    return element('ul', joined(element('li', line) for line in lines))


def facts(rows: Mapping[str, str]) -> Html:
    """Return a table of two columns without header: what, and its value."""
    lines = [
        element('tr', joined([element('th', key), element('td', value)]))
        for key, value in rows.items()
    ]
    return element('table', joined(lines), 'facts')


def table(header: Sequence[str], rows: Iterable[Sequence[str]], caption: str = '') -> Html:
    """Return a table with a header line and an optional caption above it."""
    head = element('tr', joined((element('th', cell) for cell in header), ''))
    body = [element('tr', joined((element('td', cell) for cell in row), '')) for row in rows]
    above = [element('caption', caption)] if caption else []
    return element('div', element('table', joined([*above, head, *body])), 'wide')


def section(title: str, parts: Iterable[str], how_to_read: str = '') -> Html:
    """
    Return a section.

    how_to_read: a few plain sentences for someone who sees such a section for the first time;
    they stand right under the title.
    """
    lead = []
    if how_to_read:
        words = element('strong', 'How to read this. ') + escaped(how_to_read)
        lead = [paragraph(Html(words), 'reading')]
    anchor = html.escape(anchor_of(title))
    inside = joined([element('h2', title), *lead, *parts])
    return Html(f'<section id="{anchor}">{inside}</section>')


def anchor_of(title: str) -> str:
    """Return the name that a link to a section uses (`#name`)."""
    return '-'.join(''.join(c if c.isalnum() else ' ' for c in title.lower()).split())


def contents(titles: Iterable[str]) -> Html:
    """Return links to sections of these titles."""
    links = (Html(f'<a href="#{html.escape(anchor_of(t))}">{html.escape(t)}</a>') for t in titles)
    return element('nav', joined(links, ' '))


def figure(source: str, caption: str, alt: str = '') -> Html:
    """Return a picture with its caption; source: a file beside the page, or `embedded`'s text."""
    words = html.escape(alt or caption)
    image = f'<img loading="lazy" alt="{words}" src="{html.escape(source)}">'
    if not source.startswith('data:'):  # a click shows the file at its own size
        image = f'<a href="{html.escape(source)}">{image}</a>'
    return Html(f'<figure>{image}{element("figcaption", caption)}</figure>')


def drawing(svg: str, caption: str = '') -> Html:
    """Return an SVG element, as it was made, with its caption."""
    return Html(f'<figure class="drawing">{svg}{element("figcaption", caption)}</figure>')


def figures(parts: Iterable[str], wide: bool = False) -> Html:
    """Return pictures side by side, as many as the window is wide for; wide: two at most."""
    return element('div', joined(parts, ''), 'views large' if wide else 'views')


def save_jpeg(
    folder: Path, name: str, picture: UInt8Array, width: int = PICTURE_WIDTH, quality: int = 88
) -> str:
    """
    Write a picture, uint8 (H, W, 3) RGB, `width` pixels wide; return its name beside the page.

    Raises DataError where the folder cannot be written.
    """
    _write(folder / name, _small_jpeg(picture, width, quality))
    return name


def embedded(picture: UInt8Array, width: int = PICTURE_WIDTH, quality: int = 85) -> str:
    """Return a picture, uint8 (H, W, 3) RGB, as the source of `figure`: it needs no file."""
    data = base64.b64encode(_small_jpeg(picture, width, quality)).decode('ascii')
    return f'data:image/jpeg;base64,{data}'


def _small_jpeg(picture: UInt8Array, width: int, quality: int) -> bytes:
    height = max(1, round(picture.shape[0] * width / picture.shape[1]))
    shrinks = width < picture.shape[1]
    small = cv2.resize(
        picture, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )
    return encode_jpeg(np.asarray(small, np.uint8), quality).tobytes()


def write_page(path: Path, title: str, parts: Iterable[str]) -> Path:
    """Write the page, whole or not at all; title: of the window. Returns its path."""
    text = _PAGE.format(title=html.escape(title), style=_STYLE, body=joined(parts))
    _write(path, text.encode('utf-8'))
    return path


def _write(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all."""

    def fill(temporary: Path) -> None:
        temporary.write_bytes(data)

    try:
        make_file(path, fill)
    except OSError as error:
        raise DataError(
            f'{path} cannot be written ({error.strerror}): is the folder writable, the disk full?'
        ) from error


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width"><style>{style}</style></head>
<body>{body}</body></html>
"""
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 1360px; padding: 1.5rem;
  background: #14171c; color: #dde1e7 }
h1 { font-size: 1.6rem; margin: 0 } h2 { font-size: 1.2rem; margin: 0 }
h3 { font-size: 1.05rem; margin: 1.4rem 0 .3rem }
header p, section > p, section > ul { max-width: 62rem }
section { margin: 2.4rem 0 } section p { margin: .2rem 0 .6rem }
.reading { color: #b6bfca; border-left: 3px solid #4f8fd0; padding-left: .8rem }
.good { color: #5fd38a } .bad { color: #ff6b7d } .dim { color: #9aa3b0 }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }
td, th { padding: .25rem 1.2rem .25rem 0; text-align: left; vertical-align: top }
th { color: #9aa3b0; font-weight: 500 } .facts th { white-space: nowrap }
.wide { overflow-x: auto } .wide tr { border-bottom: 1px solid #262c35 }
caption { text-align: left; color: #9aa3b0 }
nav a { margin-right: 1.2rem } a { color: #7db4ea }
.views { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)) }
.large { grid-template-columns: repeat(auto-fit, minmax(520px, 1fr)) }
figure { margin: 0 } img { width: 100%; border-radius: 4px; display: block }
figcaption { color: #9aa3b0; font-size: .85rem } code { color: #f0c674 }
.drawing svg { width: 100%; height: auto } .views .drawing { max-width: 46rem }
.swatch { display: inline-block; width: .9em; height: .9em; margin: 0 .3em 0 .8em;
  vertical-align: -.1em; border-radius: 2px }
.bar { display: inline-block; width: 9em; height: .9em; vertical-align: -.1em; border-radius: 2px;
  background: linear-gradient(90deg, #000004, #420a68, #932667, #dd513a, #fca50a, #fcffa4) }
svg { max-width: 100% } svg text { fill: #9aa3b0; font-size: 11px }
footer { color: #9aa3b0; border-top: 1px solid #333a44; padding-top: 1rem }
"""
