# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""How a TensorRT engine is built: for which GPU, which batches, with which limits."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ood_perception.errors import EngineError

COMPUTE_CAPABILITY = re.compile(r'(\d+)\.(\d)')


@dataclass(frozen=True)
class BuildOptions:
    """
    How an engine is built.

    max_batch: largest number of frames a run; the profile covers 1..max_batch.
    heights, widths: (least, usual, largest) input size of a graph whose size is free, () = fixed.
    compute_capability: such as '8.9', of a GPU that need not be here (TensorRT for RTX alone);
        '' = the GPU of this machine.
    version_compatible: the engine serves later versions of the same major one, too; slower.
    hardware_compatible: it serves every card from Ampere on, too; slower.
    workspace_mib: limit of scratch memory, 0 = all of the card's.
    optimization_level: 0..5, how long TensorRT searches, None = its default.
    """

    max_batch: int = 1
    heights: tuple[int, ...] = ()
    widths: tuple[int, ...] = ()
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
        for name, sizes in (('heights', self.heights), ('widths', self.widths)):
            if sizes and (len(sizes) != 3 or list(sizes) != sorted(sizes) or sizes[0] < 1):
                raise EngineError(f'{name} {sizes}: give least <= usual <= largest')
        if self.compute_capability and not COMPUTE_CAPABILITY.fullmatch(self.compute_capability):
            raise EngineError(f'compute capability {self.compute_capability!r}: write it like 8.9')
        level = self.optimization_level
        if level is not None and not 0 <= level <= 5:
            raise EngineError(f'optimization level {level}: give 0 to 5')

    def key(self) -> dict[str, str]:
        """Return what an engine's inputs depend on; limits of the search are not among it."""
        sizes = [f'{"-".join(map(str, s)) or "fixed"}' for s in (self.heights, self.widths)]
        return {'max_batch': str(self.max_batch), 'size': ' x '.join(sizes)}
