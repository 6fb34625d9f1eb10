# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
The one reader of YAML: recipes, studies, class maps, lists of runs, parameter files of the node.

A plain word is what rcl takes it for, so that a value means the same in a file for the node and in
a recipe: 1e-3 and .5 are numbers, 0x10 is 16, yes, no, on and off are true and false, 1_000, 12:30
and 2026-01-31 are texts. Quotes and tags (!!str 5) decide where they stand. A key that stands
twice is an error.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from ood_perception.errors import ConfigError, OodPerceptionError

MOST_CHARACTERS = 2 << 20
"""No recipe, parameter file or description of a bag is longer; PyYAML takes seconds for it."""

_BOOL = r'yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF'
_INT = r'[-+]?(?:0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)'
_FLOAT = r'[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?'
_SPECIAL = r'[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)'


class Loader(yaml.SafeLoader):  # type: ignore[misc]
    """A safe loader with the words of the module's docstring."""

    yaml_implicit_resolvers: dict[str, Any] = {  # noqa: RUF012 (PyYAML's own interface)
        first: [(tag, words) for tag, words in resolvers if tag.endswith((':null', ':merge'))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that stands twice, of which PyYAML would drop the first."""
        lines: dict[Any, int] = {}
        for key, _ in node.value:
            if key.tag == 'tag:yaml.org,2002:merge' or not isinstance(key, yaml.ScalarNode):
                continue
            name, line = self.construct_object(key), key.start_mark.line + 1
            if name in lines:
                raise yaml.constructor.ConstructorError(
                    None, None, f'{key.value!r} stands in line {lines[name]}, too: keep one of '
                    'them', key.start_mark
                )  # fmt: skip
            lines[name] = line
        result: dict[Any, Any] = super().construct_mapping(node, deep)
        return result

    def construct_yaml_int(self, node: Any) -> int:
        """
        Return 16 of 0x10 and 8 of 010, as strtol has it; a tag may ask for other texts.

        Numbers of more than 64 bits are refused, as in JSON: no float holds those of 400 digits.
        """
        text = str(self.construct_scalar(node))
        octal = re.fullmatch(r'[-+]?0[0-7]+', text)
        try:
            number = int(text, 8 if octal else 0)
        except ValueError as error:
            raise _no_number(node, 'a whole number') from error
        if not -(1 << 63) <= number < 1 << 63:
            raise _no_number(node, 'a whole number of 64 bits')
        return number

    def construct_yaml_float(self, node: Any) -> float:
        """Return the number that Python reads, .inf and .nan included."""
        text = str(self.construct_scalar(node))
        try:
            return float(re.sub(r'^([-+]?)\.(?=[ainAIN])', r'\1', text))
        except ValueError as error:
            raise _no_number(node, 'a number') from error


def _no_number(node: Any, expected: str) -> yaml.YAMLError:
    text = f'{node.value[:60]!r} is not {expected}'
    return yaml.constructor.ConstructorError(None, None, text, node.start_mark)


for _tag, _words, _first in (
    ('bool', _BOOL, 'yYnNtTfFoO'),
    ('int', _INT, '-+0123456789'),
    ('float', f'{_FLOAT}|{_SPECIAL}', '-+.0123456789'),
):
    Loader.add_implicit_resolver(
        f'tag:yaml.org,2002:{_tag}', re.compile(f'(?:{_words})$'), list(_first)
    )


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """Writes what Loader reads."""

    yaml_implicit_resolvers = Loader.yaml_implicit_resolvers


Loader.add_constructor('tag:yaml.org,2002:int', Loader.construct_yaml_int)
Loader.add_constructor('tag:yaml.org,2002:float', Loader.construct_yaml_float)


def read_text(path: Path, what: str, error: type[OodPerceptionError] = ConfigError) -> str:
    """Return a file's text; `error` says which file it is (`what`, such as 'recipe') and why."""
    try:
        with path.open(encoding='utf-8') as file:
            text = file.read(MOST_CHARACTERS + 1)
    except (OSError, UnicodeDecodeError) as reason:
        hint = ': save it as UTF-8' if isinstance(reason, UnicodeDecodeError) else ''
        raise error(f'{what} {path} cannot be read: {reason}{hint}') from reason
    if len(text) > MOST_CHARACTERS:
        raise error(f'{what} {path} has more than {MOST_CHARACTERS >> 20} MiB: no such file has')
    return text


def parse_yaml(text: str, place: str, error: type[OodPerceptionError] = ConfigError) -> Any:
    """Return the values of a YAML text; `error` names place, line and column."""
    try:
        loader = Loader(text)  # it looks at every character
        node = single_node(loader)
        return None if node is None else loader.construct_document(node)
    except (yaml.YAMLError, ValueError, RecursionError) as reason:
        raise error(f'{place} is no YAML: {yaml_problem(reason)}') from reason


def single_node(loader: Loader) -> Any:
    """Return the one node of a text, None for an empty one; YAMLError where aliases blow it up."""
    node = loader.get_single_node()
    if node is not None:
        _expanded(node, {})
    return node


def _expanded(node: Any, known: dict[int, int]) -> int:
    """
    Return how many characters a node is with every alias written out; YAMLError for too many.

    known: of the nodes that were counted, 0 for those that are not done. Loaded values share what
    aliases name; the first to copy, print or merge them would write it out.
    """
    done = known.get(id(node))
    if done is None:
        known[id(node)] = 0
        known[id(node)] = done = 1 + _inner(node, known)
    if done == 0 or done > MOST_CHARACTERS:
        problem = (
            'an alias stands inside of what it names'
            if done == 0
            else (f'with its aliases written out it has more than {MOST_CHARACTERS >> 20} MiB')
        )
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
    return done


def _inner(node: Any, known: dict[int, int]) -> int:
    if isinstance(node, yaml.ScalarNode):
        return len(node.value)
    if isinstance(node, yaml.SequenceNode):
        return sum(_expanded(one, known) for one in node.value)
    return sum(_expanded(key, known) + _expanded(one, known) for key, one in node.value)


def read_yaml(path: Path, what: str, error: type[OodPerceptionError] = ConfigError) -> Any:
    """
    Return the values of a YAML file.

    what: named in errors before the path, such as 'recipe'. error: the class that is raised for a
    file that cannot be read or is no YAML; it names file, line and column.
    """
    return parse_yaml(read_text(path, what, error), f'{what} {path}', error)


def read_mapping(path: Path, what: str) -> dict[str, Any]:
    """Return the keys and values of a YAML file; ConfigError for anything else, see read_yaml."""
    content = read_yaml(path, what)
    if not isinstance(content, dict):
        raise ConfigError(f'{what} {path} is {content!r:.60}: expected keys and values')
    return content


def dump_yaml(values: Any) -> str:
    """Return a YAML text that read_yaml gives back: texts that look like numbers are quoted."""
    return str(yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True))


def yaml_problem(reason: Exception) -> str:
    """Return what is wrong with a YAML text, in one line, and where."""
    mark = getattr(reason, 'problem_mark', None)
    problem = getattr(reason, 'problem', None) or ' '.join(str(reason).split())
    context = getattr(reason, 'context', None)
    if isinstance(reason, RecursionError):
        problem = 'it is nested too deeply'
    if '\\t' in problem:
        problem += ' (indent with spaces)'
    place = f'line {mark.line + 1}, column {mark.column + 1}: ' if mark is not None else ''
    return place + (f'{context}: {problem}' if context else problem)
