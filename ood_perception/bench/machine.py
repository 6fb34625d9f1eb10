# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What the figures depend on: processor, memory, versions; and what a run used of them."""

from __future__ import annotations

import os
import platform
import resource
from importlib import metadata
from pathlib import Path

from ood_perception.cpu_flags import cpu_flags, cpu_name
from ood_perception.types import JsonDict

POWER = Path('/sys/class/powercap')
PACKAGES = ('openvino', 'onnxruntime', 'onnx', 'numpy', 'opencv-python-headless', 'torch')


def machine() -> JsonDict:
    """Return processor, cores, memory, load, system and the versions that matter."""
    return {
        'processor': _processor(),
        'cores': len(os.sched_getaffinity(0)),
        'memory_gb': round(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9, 1),
        'load_average': round(os.getloadavg()[0], 2),
        'system': f'{platform.system()} {platform.machine()} {" ".join(platform.libc_ver())}',
        'python': platform.python_version(),
        'packages': _versions(),
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    """Return the processor's name with the features that decide the precision."""
    name = cpu_name() or platform.processor() or platform.machine()
    return f'{name} ({", ".join(flags)})' if (flags := cpu_flags()) else name


def peak_rss_mb() -> float:
    """Return this process's peak of resident memory in MiB."""
    try:
        status = Path('/proc/self/status').read_text(encoding='ascii')
        # getrusage would count the parent's memory from before exec
        return float(status.split('VmHWM:')[1].split()[0]) / 1024
    except (OSError, IndexError):  # not Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class EnergyMeter:
    """
    Joules of all processor packages, from the kernel's power caps (RAPL).

    Many machines do not tell: no such counters, or for root alone. Then `told` is False.
    """

    def __init__(self, root: Path = POWER) -> None:
        # intel-rapl:0 is a package, intel-rapl:0:1 a part of it that must not count twice
        zones = [zone for zone in sorted(root.glob('*-rapl:*')) if zone.name.count(':') == 1]
        self._zones = [zone for zone in zones if _number(zone / 'energy_uj') is not None]
        self._last = self._read()

    @property
    def told(self) -> bool:
        """Whether this machine tells its energy."""
        return bool(self._zones)

    def since_last(self) -> float | None:
        """Return joules since the last call or the start, None where the machine is silent."""
        before, self._last = self._last, self._read()
        if not self._zones:
            return None
        joules = 0.0
        for zone, old, new in zip(self._zones, before, self._last, strict=True):
            wrapped = (_number(zone / 'max_energy_range_uj') or 0) if new < old else 0
            joules += (new - old + wrapped) / 1e6
        return joules

    def _read(self) -> list[int]:
        return [_number(zone / 'energy_uj') or 0 for zone in self._zones]


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding='ascii'))
    except (OSError, ValueError):
        return None
