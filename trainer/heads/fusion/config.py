# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The recipe's section `fusion`."""

from __future__ import annotations

from dataclasses import dataclass

from ood_perception.errors import ConfigError, check_choices

from ...training_data import DataConfig

COMBINATIONS = ('max', 'mean')


@dataclass(frozen=True)
class MemberConfig:
    """
    One head of a fusion.

    kind: a row of heads.HEADS. layers: the backbone's blocks that it reads, () = the recipe's.
    data: the labelled images that it is fitted and calibrated on, None = the recipe's; their
        classes may be others. Everything else is what the recipe's sections say of that kind.
    """

    kind: str
    layers: tuple[int, ...] = ()
    data: DataConfig | None = None


@dataclass(frozen=True)
class FusionConfig:
    """members: at least two, each of a kind of its own. combine: one of COMBINATIONS."""

    members: tuple[MemberConfig, ...] = ()
    combine: str = 'mean'

    def __post_init__(self) -> None:
        check_choices('fusion', self, combine=COMBINATIONS)
        kinds = [member.kind for member in self.members]
        if len(set(kinds)) != len(kinds) or len(kinds) == 1 or 'fusion' in kinds:
            raise ConfigError(
                f'fusion members {kinds}: name at least two kinds of heads, each once, no fusion'
            )
