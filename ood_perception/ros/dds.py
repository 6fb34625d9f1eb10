# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
The Fast DDS profile for large images, and the environment that applies it.

The profile acts in the publisher's process and is read when that process first touches DDS, so
the variables must be set before rclpy.init: in the launch file or the parent process.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ood_perception.errors import ConfigError

LARGE_IMAGES = 'large_images'
PROFILES = ('', LARGE_IMAGES)
# Jazzy and Humble read the first, Kilted and later the second.
VARIABLES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')
_FILES = {LARGE_IMAGES: 'dds_large_images.xml'}


def profile_path(name: str) -> Path:
    """Return the XML file of a profile; ConfigError for an unknown name or a missing file."""
    if name not in _FILES:
        raise ConfigError(
            f'dds_profile {name!r} is not known: use one of {", ".join(map(repr, PROFILES))}'
        )
    for folder in _config_folders():
        path = folder / _FILES[name]
        if path.is_file():
            return path
    raise ConfigError(
        f'dds_profile {name!r}: {_FILES[name]} is neither beside the package nor in the share '
        'folder of this environment: reinstall ood_perception'
    )


def environment(name: str) -> dict[str, str]:
    """Return the variables to set before a process starts, {} for the profile ''."""
    if not name:
        return {}
    path = str(profile_path(name))
    return dict.fromkeys(VARIABLES, path)


def transport_summary(variables: Mapping[str, str] = os.environ) -> str:
    """Return in words how this process was told to transport large messages."""
    profile = next((variables[v] for v in VARIABLES if variables.get(v)), '')
    builtin = variables.get('FASTDDS_BUILTIN_TRANSPORTS', '')
    if profile:
        return f'profile {profile}'
    return f'built-in transports {builtin}' if builtin else 'default transports'


def _config_folders() -> list[Path]:
    """Return where the shipped configuration may lie: a checkout, an ament index, a prefix."""
    import sys

    folders = [Path(__file__).resolve().parents[2] / 'config']
    prefixes = [p for p in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep) if p]
    return folders + [
        Path(prefix) / 'share' / 'ood_perception' / 'config' for prefix in (*prefixes, sys.prefix)
    ]
