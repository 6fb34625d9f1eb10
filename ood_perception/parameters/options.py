# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Parameters of the node as options of a command line."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from ood_perception.engines import ENGINES
from ood_perception.errors import ConfigError
from ood_perception.parameters.files import read_parameters
from ood_perception.parameters.table import BY_NAME, DEFAULTS
from ood_perception.types import Tell

_CHOICES = {'engine': ('auto', *ENGINES)}


def add_parameters(parser: argparse.ArgumentParser, names: Sequence[str]) -> None:
    """Add --params, --node and an option for each parameter, '--roi-mode' for 'roi.mode'."""
    group = parser.add_argument_group('model', "the node's parameters of the same names")
    add = group.add_argument
    add('--params', type=Path, metavar='YAML', help="the node's parameter file")
    add('--node', default='', help='whose section of --params, such as /robot1/nav')
    for name in names:
        spec = BY_NAME[name]
        several = isinstance(spec.default, tuple)
        option = f'--{_option(name).replace("_", "-")}'
        if isinstance(spec.default, bool):
            both = argparse.BooleanOptionalAction
            add(option, action=both, default=None, help=spec.description)
            continue
        add(
            option,
            type=str if several else type(spec.default),
            nargs='+' if several else None,
            choices=_CHOICES.get(name, spec.choices or None),
            help=spec.description,
        )


def chosen_parameters(
    options: argparse.Namespace,
    names: Sequence[str],
    tell: Tell,
    used: Collection[str] = tuple(DEFAULTS),
) -> dict[str, Any]:
    """
    Return the parameters that --params sets and those that options set, which come first.

    names: parameters of which `options` has a field; None there leaves the file's value.
    tell, used: see read_parameters. Raises ConfigError as read_parameters does.
    """
    if options.params is None and options.node:
        raise ConfigError(
            f'--node {options.node} chooses among the sections of --params: give both'
        )
    values = {}
    if options.params:
        values = read_parameters(options.params, tell, options.node, used)
    for name in names:
        given = getattr(options, _option(name))
        if given is not None:
            values[name] = tuple(given) if isinstance(given, list) else given
    return values


def _option(name: str) -> str:
    return name.replace('.', '_')
