# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
The node's parameters from a ROS parameter file, as rcl reads it, without ROS.

    /**:                          every node
      ros__parameters: {a: 1, b.c: 2}
    /robot1/road_anomaly:         one node, its namespace in the name ...
      ros__parameters: {b: {c: 3}}
    robot1:                       ... or around it
      road_anomaly:
        ros__parameters: {a: 4}

In names `*` stands for one name and `**` for any number of them. Of two values for one parameter
the later section's counts.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ood_perception.errors import ConfigError
from ood_perception.parameters.settings import strings
from ood_perception.parameters.table import (
    BY_NAME,
    DEFAULTS,
    NODE,
    Spec,
    check_value,
    typed,
)
from ood_perception.types import Tell
from ood_perception.yaml_files import Loader, read_text, single_node, yaml_problem

PARAMETERS_KEY = 'ros__parameters'
# What rclpy and the launch files of ROS set on every node
_OF_ROS = ('use_sim_time', 'start_type_description_service')
_OF_ROS_PREFIX = 'qos_overrides.'


# Names that share this much (difflib's ratio) with one of ours are taken for misspelt.
_MISSPELT = 0.8
_TOKEN = re.compile(r'\*\*?|[A-Za-z_][A-Za-z0-9_]*')


class _RclLoader(Loader):
    """Loader with the words that only rcl takes for values: y and n, inf and nan without a dot."""

    bool_values = {**Loader.bool_values, 'y': True, 'n': False}  # noqa: RUF012 (PyYAML's own)


for _tag, _words, _first in (
    ('bool', '[yYnN]', 'yYnN'),
    ('float', '[-+]?(?i:inf|infinity|nan)', '-+iInN'),
):
    _RclLoader.add_implicit_resolver(
        f'tag:yaml.org,2002:{_tag}', re.compile(f'(?:{_words})$'), list(_first)
    )


def read_parameters(
    path: Path, tell: Tell, node: str = '', used: Collection[str] = tuple(DEFAULTS)
) -> dict[str, Any]:
    """
    Return those values of `used` that a ROS parameter file sets for one node.

    tell: takes, line by line, what is not used: other sections, names that the node does not have
    (with the nearest), parameters without effect here. node: see sections_for. Raises ConfigError
    naming the file, what is wrong and the remedy.
    """
    place = f'parameter file {path}'
    sections = read_sections(path, tell)
    chosen = sections_for(sections, node, place) if sections else []
    left_out = [section.pattern for section in sections if section not in chosen]
    if left_out:
        patterns = ', '.join(section.pattern for section in chosen)
        tell(f'{place}: read for {patterns}; not for {", ".join(left_out)} (--node chooses)')
    values: dict[str, Any] = {}
    for section in chosen:
        values.update(section.values)
    unknown = unknown_names(values)
    if unknown:
        tell(f'{place}: no such parameters, ignored: {", ".join(unknown)}')
    checked = {n: _checked(BY_NAME[n], v, place) for n, v in values.items() if n in BY_NAME}
    idle = [n for n, v in checked.items() if n not in used and v != BY_NAME[n].default]
    if idle:
        tell(f'{place}: of use to the node alone, without effect here: {", ".join(idle)}')
    return {
        name: strings(value) if isinstance(value, tuple) else value
        for name, value in checked.items()
        if name in used
    }


def _checked(spec: Spec, value: Any, place: str) -> Any:
    """Return a value of the parameter's type; ConfigError for another or a wrong one."""
    try:
        found = typed(spec, value)
        check_value(spec, found)
    except ConfigError as error:
        raise ConfigError(f'{place}: {error}') from error
    return found


@dataclass(frozen=True)
class Section:
    """
    What a file sets for the nodes of a name.

    pattern: '/robot1/road_anomaly', '/**', ... line: of its ros__parameters, from 1.
    values: by dotted names.
    """

    pattern: str
    line: int
    values: dict[str, Any]

    def matches(self, node: str) -> bool:
        """Whether the node of this full name takes the section."""
        words = self.pattern.replace('/**', '(/NAME)*').replace('/*', '(/NAME)')
        return re.fullmatch(words.replace('NAME', r'\w+'), node) is not None

    @property
    def example(self) -> str:
        """The full name of a node that takes the section: the shortest, ours where any may be."""
        names = self.pattern.replace('/**', '').replace('/*', '/any')
        if self.pattern.endswith('*'):
            return f'{names.removesuffix("/any")}/{NODE}'
        return names


def read_sections(path: Path, tell: Tell) -> list[Section]:
    """
    Return the sections of a parameter file in its order.

    tell: takes what the user should know: an alias, which rcl refuses; a parameter that is set
    twice. Raises ConfigError naming file, line and remedy for what is no parameter file.
    """
    text = read_text(path, 'parameter file')
    try:
        loader = _RclLoader(text)  # it looks at every character
        root = single_node(loader)
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
            tell(f'{path} has YAML aliases (*name): read here, but the node refuses them')
        if root is None or _is_null(root):
            tell(f'{path} is empty: it sets nothing')
            return []
        return _Walk(path, loader, tell).sections(root)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f'parameter file {path} is no YAML: {yaml_problem(error)}') from error


class _Walk:
    """Walks through a file's YAML nodes, which know their lines."""

    def __init__(self, path: Path, loader: Loader, tell: Tell) -> None:
        self._path, self._loader, self._tell = path, loader, tell

    def sections(self, node: Any, prefix: str = '') -> list[Section]:
        """Return the sections below a YAML node; prefix: the names above it."""
        if not isinstance(node, yaml.MappingNode):
            raise self._error(
                node,
                f'{str(getattr(node, "value", node))!r:.60} stands above '
                f'{PARAMETERS_KEY}: write "{NODE}:", below it "  {PARAMETERS_KEY}:", below that '
                'the parameters',
            )
        found: list[Section] = []
        for key, value in node.value:
            name = str(key.value)
            if name == PARAMETERS_KEY:
                if not prefix:
                    raise self._error(key, f'{name} lies below no name: write "{NODE}:" above it')
                values = self._parameters(value, prefix)
                found.append(Section(prefix, key.start_mark.line + 1, values))
            else:
                found += self.sections(value, self._joined(prefix, key))
        return found

    def _joined(self, prefix: str, key: Any) -> str:
        """Return a longer name; ConfigError for one that no node can have."""
        tokens = str(key.value).removeprefix('/').split('/')
        if not all(_TOKEN.fullmatch(token) for token in tokens):
            raise self._error(
                key,
                f'{key.value!r} is no name of a node: letters, digits and underscores between '
                'single slashes; * and ** only stand for whole names',
            )
        return '/'.join([prefix, *tokens])

    def _parameters(self, node: Any, pattern: str) -> dict[str, Any]:
        values: dict[str, Any] = {}
        if _is_null(node):
            self._tell(f'{self._path}: the section of {pattern} is empty and sets nothing')
        elif not isinstance(node, yaml.MappingNode):
            raise self._error(node, f'below {PARAMETERS_KEY} belong names with values')
        else:
            self._fill(values, node, '')
        return values

    def _fill(self, values: dict[str, Any], node: Any, prefix: str) -> None:
        """Add the parameters of a YAML mapping by dotted names."""
        self._loader.flatten_mapping(node)  # of <<, which stands for another mapping's keys
        for key, value in node.value:
            name = f'{prefix}{key.value}'
            if isinstance(value, yaml.MappingNode):
                self._fill(values, value, f'{name}.')
                continue
            if _is_null(value):
                raise self._error(key, f"{name} has no value: write '' for an empty text")
            if name in values:
                line = key.start_mark.line + 1
                self._tell(f'{self._path}: {name} is set twice, line {line} counts')
            values[name] = self._loader.construct_object(value, deep=True)

    def _error(self, node: Any, text: str) -> ConfigError:
        line = node.start_mark.line + 1
        return ConfigError(
            f'parameter file {self._path} line {line}: {text} (pattern: config/road_anomaly.yaml)'
        )


def _is_null(node: Any) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == 'tag:yaml.org,2002:null'


def sections_for(sections: Sequence[Section], node: str, place: str) -> list[Section]:
    """
    Return the sections that one node takes, in the file's order.

    node: its name, with or without namespace; '' = the one that the file is for: road_anomaly,
    else the only one that sets a parameter of ours.
    place: names the file in errors. ConfigError lists the sections where none or several fit.
    """
    full = _named(sections, node, place) if node else _only(sections, place)
    return [section for section in sections if section.matches(full)]


def _named(sections: Sequence[Section], node: str, place: str) -> str:
    """Return the full name of the node that --node says."""
    if node.startswith('/'):
        full = [node]
    else:
        ends = [s.example for s in sections if f'/{s.example}'.endswith(f'/{node}')]
        full = list(dict.fromkeys(ends)) or [f'/{node}']
    if len(full) > 1:
        raise ConfigError(f'{place}: --node {node} may be {", ".join(full)}: give the whole name')
    if not any(section.matches(full[0]) for section in sections):
        raise ConfigError(f'{place} has no section for --node {node}; {_listed(sections)}')
    return full[0]


def _only(sections: Sequence[Section], place: str) -> str:
    """Return the full name of the node that the file is for."""
    names = _distinct(sections)
    if f'/{NODE}' in names:
        return f'/{NODE}'
    ours = [name for name in names if name.endswith(f'/{NODE}')]
    if not ours and len(names) > 1:
        ours = [name for name in names if _sets_ours(sections, name)]
    chosen = ours or names
    if not ours and len(chosen) == 1 and not _sets_ours(sections, chosen[0]):
        raise ConfigError(
            f'{place} sets no parameter of this node: add a section for {NODE}, or say with '
            f'--node which one is for it; {_listed(sections)}'
        )
    if len(chosen) > 1:
        raise ConfigError(
            f'{place} is for several nodes: say with --node which of them; {_listed(sections)}'
        )
    return chosen[0] if chosen else f'/{NODE}'


def _sets_ours(sections: Sequence[Section], name: str) -> bool:
    """Whether sections of exactly this node set a parameter of ours."""
    return any(value in BY_NAME for s in sections if s.example == name for value in s.values)


def _distinct(sections: Sequence[Section]) -> list[str]:
    """Return the nodes that the file tells apart; a pattern that covers one of them adds none."""
    plain = list(dict.fromkeys(s.example for s in sections if '*' not in s.pattern))
    patterns = [s for s in sections if '*' in s.pattern and not any(map(s.matches, plain))]
    # of patterns, the narrow ones name a node, and the wide ones are for it, too
    narrow = [s for s in patterns if not any(
        s is not other and s.matches(other.example) and not other.matches(s.example)
        for other in patterns
    )]  # fmt: skip
    return plain + list(dict.fromkeys(s.example for s in narrow))


def _listed(sections: Sequence[Section]) -> str:
    found = ', '.join(f'{s.pattern} (line {s.line})' for s in sections)
    return f'its sections: {found or "none"}'


def unknown_names(names: Iterable[str]) -> list[str]:
    """Return the names that no parameter of the node has, each with the nearest that there is."""
    unknown = {name: _nearest(name, name.rpartition('.')[2]) for name in filter(_unknown, names)}
    return [f'{n} (did you mean {near}?)' if near else n for n, near in unknown.items()]


def misspelt_names(names: Iterable[str]) -> list[str]:
    """
    Return the unknown names that can only be meant for this node, each with the one meant.

    They nearly are a name of ours, or are the last part of one ('mode' for 'roi.mode').
    """
    meant = {name: _nearest(name, name, _MISSPELT) for name in filter(_unknown, names)}
    return [f'{name} (did you mean {near}?)' for name, near in meant.items() if near]


def _nearest(name: str, last_part: str, ratio: float = 0.6) -> str:
    """Return our name that is like `name`, else the first that ends in a last part; '' if none."""
    ends = (known for known in BY_NAME if known.rpartition('.')[2] == last_part)
    return next(iter(difflib.get_close_matches(name, BY_NAME, 1, ratio)), '') or next(ends, '')


def _unknown(name: str) -> bool:
    return not (name in BY_NAME or name in _OF_ROS or name.startswith(_OF_ROS_PREFIX))
