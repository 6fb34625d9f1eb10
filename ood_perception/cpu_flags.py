# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What this CPU can do and which precisions follow, by the standard library alone."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from pathlib import Path

CPUINFO = Path('/proc/cpuinfo')
# Linux's name: leaf of glibc's <sys/platform/x86.h>, register (eax to edx), bit.
# Source: Intel's manual, instruction CPUID.
_BITS = {
    'sse4_2': (0, 2, 20),
    'avx2': (1, 1, 5),
    'avx512f': (1, 1, 16),
    'avx512_vnni': (1, 2, 11),
    'amx_bf16': (1, 3, 22),
    'amx_int8': (1, 3, 25),
    'avx_vnni': (6, 0, 4),
    'avx512_bf16': (6, 0, 5),
}
_ARM = ('asimd', 'asimddp', 'i8mm', 'bf16')
_VNNI = {'avx512_vnni', 'avx_vnni', 'amx_int8'}
_BF16 = {'avx512_bf16', 'amx_bf16', 'bf16'}


def cpu_flags() -> tuple[str, ...]:
    """
    Return the flags that decide speed and precision, as Linux names them.

    glibc (2.33 or later) asks the CPU itself; /proc/cpuinfo, read elsewhere, names the real
    machine's flags under an emulator.
    """
    try:
        ask = ctypes.CDLL(None).__x86_get_cpuid_feature_leaf
    except (AttributeError, OSError):  # Arm, musl, an older glibc
        return kernel_flags()
    # struct cpuid_feature: four registers as the CPU tells them, four of what the system allows
    ask.restype, ask.argtypes = ctypes.POINTER(ctypes.c_uint32 * 8), [ctypes.c_uint]
    return tuple(
        name
        for name, (leaf, register, bit) in _BITS.items()
        if ask(leaf).contents[4 + register] >> bit & 1
    )


def kernel_flags() -> tuple[str, ...]:
    """Return the same flags as the kernel names them: those of the real CPU."""
    facts = _cpuinfo()
    known = f'{facts.get("flags", "")} {facts.get("Features", "")}'.split()
    return tuple(name for name in (*_BITS, *_ARM) if name in known)


def cpu_name() -> str:
    """Return the name that Linux has for this CPU, '' where it has none (Arm)."""
    return _cpuinfo().get('model name', '')


def what_follows(flags: Iterable[str]) -> str:
    """Return what int8 and bf16 are worth on a CPU of these flags: docs/engines.md."""
    have = set(flags)
    if 'asimd' in have:
        return 'int8 is fast' if have & {'asimddp', 'i8mm'} else 'f32; int8 gains nothing'
    if 'avx2' not in have:
        return 'f32, and slowly (older than AVX2)'
    bf16 = ' and bf16 are' if have & _BF16 else ' is'
    if have & _VNNI:
        return f'int8{bf16} fast'
    if 'avx512f' in have:
        return 'int8 with 7-bit weights (no VNNI)'
    return 'f32 with OpenVINO, where int8 gains nothing (no VNNI, no AVX-512)'


def _cpuinfo() -> dict[str, str]:
    """Return the facts of the first processor."""
    try:
        lines = CPUINFO.read_text(encoding='utf-8').split('\n\n')[0].splitlines()
    except OSError:
        return {}
    pairs = (line.partition(':') for line in lines)
    return {name.strip(): value.strip() for name, _, value in pairs}
