# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
What this package asks for, as its own metadata says: what of it is here, and how to install it.

The standard library alone: it must work where nothing else is installed.
"""

from __future__ import annotations

import operator
import platform
import re
import sys
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec

NAME = 'ood_perception'
# modules whose names do not follow from their package's, or that several packages bring
_MODULES = {
    'opencv-python-headless': 'cv2',
    'pillow': 'PIL',
    'pyyaml': 'yaml',
    'faiss-cpu': 'faiss',
    'scikit-learn': 'sklearn',
    'cuda-bindings': 'cuda.bindings',
    'universal-pathlib': 'upath',
    'tensorrt-rtx-cu13-bindings': 'tensorrt_rtx',
}
_COMPARE = {'<': operator.lt, '<=': operator.le, '==': operator.eq, '>=': operator.ge}
_EXTRA = re.compile(r"""(?:\s*and\s+)?extra\s*==\s*['"]([\w.-]+)['"]""")
_CLAUSE = re.compile(r"""(\w+)\s*([<>=]+)\s*['"]([^'"]+)['"]""")


@dataclass(frozen=True)
class Requirement:
    """A package and its versions that serve, 'numpy' '<3,>=1.26'; extra: whose, '' for none."""

    name: str
    versions: str
    extra: str = ''

    def __str__(self) -> str:
        return self.name + self.versions

    @property
    def installed(self) -> str:
        """The installed version, '' if missing, '?' if only a module of it can be found."""
        try:
            return metadata.version(self.name)
        except metadata.PackageNotFoundError:
            # apt's OpenCV has no metadata, and another build of a package has another name
            return '?' if has_module(_MODULES.get(self.name, self.name)) else ''

    @property
    def is_met(self) -> bool:
        """Whether a version that serves is installed; one that is not told is believed."""
        found = self.installed
        clauses = re.findall(r'([<>=]+)([\d.]+)', self.versions)
        return bool(found) and (
            found == '?'
            or all(_COMPARE[sign](_numbers(found), _numbers(bound)) for sign, bound in clauses)
        )


def has_module(name: str) -> bool:
    """Return whether a module can be found, without importing it."""
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):  # the folder above it is missing, or it is half loaded
        return False


def requirements() -> list[Requirement]:
    """Return what applies to this machine, of every extra; [] where there is no metadata."""
    try:
        lines = metadata.requires(NAME) or []
    except metadata.PackageNotFoundError:  # a checkout that was never installed
        return []
    return [found for line in lines if (found := _parsed(line))]


def install_command(extra: str) -> str:
    """
    Return the command that installs an extra.

    It names the packages, not ours: that works from a checkout, a wheel and a colcon workspace.
    """
    wanted = [one for one in requirements() if one.extra == extra]
    names = [f"'{one}'" if one.versions else str(one) for one in wanted]
    return f'pip install {" ".join(names)}' if names else f"pip install '.[{extra}]' in a checkout"


def _parsed(line: str) -> Requirement | None:
    """Return one line of the metadata; None where its marker is about other machines."""
    what, _, marker = line.partition(';')
    extra = _EXTRA.search(marker)
    here = {
        'python_version': '.'.join(platform.python_version_tuple()[:2]),
        'sys_platform': sys.platform,
        'platform_machine': platform.machine(),
    }
    for name, sign, value in _CLAUSE.findall(_EXTRA.sub('', marker)):
        mine, other = here[name], value
        if name == 'python_version':
            if not _COMPARE[sign](_numbers(mine), _numbers(other)):
                return None
        elif mine != other:
            return None
    name = re.match(r'[\w.-]+', what)
    assert name, line
    return Requirement(name[0], what[name.end() :].strip(), extra[1] if extra else '')


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r'\d+', version)[:3])
