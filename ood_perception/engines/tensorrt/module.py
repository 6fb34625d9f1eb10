# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Which TensorRT is there: 10.x or 11.x, or TensorRT for RTX 1.x, whose API is the same."""

from __future__ import annotations

import importlib
import logging
import re
from collections import deque
from dataclasses import dataclass
from functools import cache
from typing import Any

from ood_perception.errors import DependencyError, EngineError
from ood_perception.requirements import install_command

# The full library first: it has all cards. tensorrt_rtx is a front for tensorrt_rtx_bindings.
MODULES = {
    'tensorrt': 'tensorrt',
    'tensorrt_rtx': 'tensorrt_rtx',
    'tensorrt_rtx_bindings': 'tensorrt_rtx',
}
_LOG = logging.getLogger(__name__)
COMPUTE_CAPABILITY = re.compile(r'(\d+)\.(\d)')


@dataclass(frozen=True)
class TensorRt:
    """
    The module that was found.

    module: with Builder, Runtime and so on. name: 'tensorrt' or 'tensorrt_rtx'. logger: the one
    logger of the process (TensorRT keeps the first). messages: the latest errors and warnings,
    because a call that fails returns None and says why only there.
    """

    module: Any
    name: str
    version: str
    logger: Any
    messages: deque[str]

    @property
    def is_rtx(self) -> bool:
        """Whether kernels are compiled when the engine is loaded, for named cards or families."""
        return self.name == 'tensorrt_rtx'

    def last_error(self) -> str:
        """Return what TensorRT said last, and forget it."""
        said = '; '.join(list(self.messages)[-3:]) or 'no reason given'
        self.messages.clear()
        return said


@cache
def load_tensorrt() -> TensorRt:
    """Return the TensorRT of this machine; DependencyError where there is none."""
    reasons = []
    for module_name, name in MODULES.items():
        try:
            module = importlib.import_module(module_name)
        except (ImportError, OSError, RuntimeError) as error:  # OSError: a library is missing
            reasons.append(f'{module_name}: {str(error).splitlines()[0]}')
            continue
        if not hasattr(module, 'Builder'):
            reasons.append(f'{module_name}: a runtime without a builder')
            continue
        messages: deque[str] = deque(maxlen=20)
        logger = _logger(module, messages)
        return TensorRt(module, name, str(module.__version__), logger, messages)
    raise DependencyError(
        f'engine tensorrt needs its package: {install_command("tensorrt-rtx")} for '
        "GeForce and RTX cards, NVIDIA's TensorRT 10 or 11 (JetPack, apt) for all others "
        f'({"; ".join(reasons)})'
    )


def _logger(module: Any, messages: deque[str]) -> Any:
    severities = module.ILogger.Severity
    levels = {
        severities.INTERNAL_ERROR: logging.ERROR,
        severities.ERROR: logging.ERROR,
        severities.WARNING: logging.WARNING,
        severities.INFO: logging.DEBUG,
        severities.VERBOSE: logging.DEBUG,
    }

    class Logger(module.ILogger):  # type: ignore[misc]
        """Hands messages of TensorRT to logging; the caller reports an error, in one line."""

        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            level = levels.get(severity, logging.DEBUG)
            if level == logging.ERROR:
                messages.append(message.strip())
            _LOG.log(min(level, logging.INFO), '%s', message)

    return Logger()


@dataclass(frozen=True)
class BuildOptions:
    """
    How an engine is built.

    max_batch: largest number of frames a run; the profile covers 1..max_batch.
    compute_capability: such as '8.9', of a GPU that need not be here (TensorRT for RTX alone);
        '' = the GPU of this machine.
    version_compatible: the engine serves later versions of the same major one, too; slower.
    hardware_compatible: it serves every card from Ampere on, too; slower.
    workspace_mib: limit of scratch memory, 0 = all of the card's.
    optimization_level: 0..5, how long TensorRT searches, None = its default.
    """

    max_batch: int = 1
    compute_capability: str = ''
    version_compatible: bool = False
    hardware_compatible: bool = False
    workspace_mib: int = 0
    optimization_level: int | None = None

    def __post_init__(self) -> None:
        if self.max_batch < 1:
            raise EngineError(
                f'max_batch {self.max_batch}: give the number of cameras, at least 1'
            )
        if self.workspace_mib < 0:
            raise EngineError(f'workspace {self.workspace_mib} MiB: give 0 (no limit) or more')
        if self.compute_capability and not COMPUTE_CAPABILITY.fullmatch(self.compute_capability):
            raise EngineError(f'compute capability {self.compute_capability!r}: write it like 8.9')
        level = self.optimization_level
        if level is not None and not 0 <= level <= 5:
            raise EngineError(f'optimization level {level}: give 0 to 5')
