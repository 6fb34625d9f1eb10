# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
The floors of both packages: a room imports only from rooms below it, and nothing in a circle.

A room is a folder at a package's root, or a file there; every head's folder is a room of its own,
above the files that lie in `heads` itself. Imports under TYPE_CHECKING and inside functions count:
they are real dependencies.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# From the lowest floor up. A floor is one step or several, one above the other; the rooms of one
# step do not import each other.
FLOORS = {
    'ood_perception': [
        [{'texts'}, {'types', 'errors', 'requirements', 'cpu_flags'}],
        [{'files', 'typed_values'}, {'json_files', 'yaml_files'}, {'image'}],
        [{'bundle'}],
        [{'engines', 'postprocess'}],
        [{'ranging', 'settings'}],
        [{'metrics'}],
        [{'pipeline', 'parameters'}],
        [{'loader'}],
        [{'evaluation', 'bench'}],
        [{'reports'}],
        [{'bags'}, {'demo', 'fleet'}, {'adapt'}],
        [{'ros'}, {'cli'}],
    ],
    'trainer': [
        [{'distributed'}, {'artifacts', 'head_module', 'progress', 'backbones', 'data'}],
        [{'feature_files'}, {'features'}],
        [{'augment', 'nets', 'calibration'}],
        [{'datasets', 'training'}],
        [{'training_data'}],
        [
            {'heads'},
            {'heads.pixood', 'heads.uem', 'heads.rpl', 'heads.nflowjs'},
            {'heads.knn', 'heads.baselines', 'heads.fusion'},
            {'heads.distilled'},
        ],
        [{'export', 'recipe', 'evaluation'}],
        [{'workflow'}],
        [{'study', 'bench_reference', 'cost'}],
        [{'__main__'}],
    ],
}
# below, and still not to be imported: (who, what)
FORBIDDEN = {'ood_perception': {('metrics', 'ranging')}, 'trainer': set()}
# rooms whose folders are rooms
DIVIDED = {'heads'}

Graph = Mapping[str, set[str]]


def modules(root: Path, package: str) -> dict[str, Path]:
    """Return the files of a package by the name of their module."""
    names = {}
    for path in sorted((root / package).rglob('*.py')):
        parts = path.relative_to(root).with_suffix('').parts
        names['.'.join(parts[:-1] if parts[-1] == '__init__' else parts)] = path
    return names


def graph_of(root: Path, package: str) -> dict[str, set[str]]:
    """Return what every module of a package imports of the package, wherever the import stands."""
    known = modules(root, package)
    graph = {}
    for name, path in known.items():
        own = name if path.name == '__init__.py' else name.rpartition('.')[0]
        found = set(imports(ast.parse(path.read_text(encoding='utf-8'), str(path)), own))
        graph[name] = {one for target in found if (one := _module(target, known))} - {name}
    return graph


def imports(tree: ast.AST, package: str) -> Iterator[str]:
    """Yield the dotted name of all that is imported; package: what relative imports start at."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split('.')[: 1 - node.level or None] if node.level else []
            base = [*parts, *([node.module] if node.module else [])]
            yield from ('.'.join([*base, name.name]) for name in node.names)


def _module(target: str, known: Mapping[str, Path]) -> str:
    """Return the module that a dotted name is, or is in; '' outside the package."""
    return next((name for name in (target, target.rpartition('.')[0]) if name in known), '')


def circles(graph: Graph) -> list[list[str]]:
    """Return the largest sets of modules that import each other, directly or not (Tarjan)."""
    numbers: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(name: str) -> None:
        numbers[name] = lowest[name] = len(numbers)
        stack.append(name)
        for other in sorted(graph[name]):
            if other not in numbers:
                visit(other)
            if other in stack:
                lowest[name] = min(lowest[name], lowest[other])
        if lowest[name] == numbers[name]:
            place = stack.index(name)
            circle = stack[place:]
            del stack[place:]
            if len(circle) > 1:
                found.append(sorted(circle))

    for name in sorted(graph):
        if name not in numbers:
            visit(name)
    return sorted(found)


def room_of(module: str, package: str) -> str:
    """Return the room that a module is in, '' for the package itself."""
    _, *parts = module.split('.')
    if parts[:1] and parts[0] in DIVIDED and '.'.join(parts[:2]) in heights(package):
        return '.'.join(parts[:2])
    return parts[0] if parts else ''


def heights(package: str) -> dict[str, int]:
    """Return how high every room stands: its step, counted from below."""
    steps = [step for floor in FLOORS[package] for step in floor]
    return {room: height for height, step in enumerate(steps) for room in step}


def upward(graph: Graph, package: str) -> list[str]:
    """Return every import that does not lead down, and every module without a floor."""
    height = heights(package)
    wrong = []
    for module in sorted(graph):
        here = room_of(module, package)
        if here and here not in height:
            wrong.append(f'{module} stands on no floor')
            continue
        for other in sorted(graph[module]):
            there = room_of(other, package)
            if not here or not there or here == there or there not in height:
                continue
            if height[there] >= height[here] or (here, there) in FORBIDDEN[package]:
                wrong.append(f'{module} imports {other}')
    return wrong


@pytest.mark.parametrize('package', FLOORS)
def test_no_module_imports_itself_by_way_of_others(package):
    assert circles(graph_of(ROOT, package)) == []


@pytest.mark.parametrize('package', FLOORS)
def test_imports_lead_down(package):
    assert upward(graph_of(ROOT, package), package) == []


def house(root: Path, files: Mapping[str, str]) -> dict[str, set[str]]:
    """Write files of a package `trainer` and return its graph."""
    for name, text in files.items():
        path = root / 'trainer' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        for folder in path.parents[: len(Path(name).parts)]:
            (folder / '__init__.py').touch()
        path.write_text(text)
    return graph_of(root, 'trainer')


def test_a_circle_through_a_typing_import_is_found(tmp_path):
    graph = house(
        tmp_path,
        {
            'recipe.py': 'from .heads.uem.config import UemConfig\n',
            'heads/uem/config.py': 'from ...workflow import Workflow\n',
            'workflow.py': 'if TYPE_CHECKING:\n    from . import recipe\n',
            'data/images.py': 'import trainer.data.splits\n',
            'data/splits.py': '',
        },
    )
    assert circles(graph) == [['trainer.heads.uem.config', 'trainer.recipe', 'trainer.workflow']]


@pytest.mark.parametrize(
    ('module', 'text', 'wrong'),
    [
        ('data/images.py', 'from ..features import extract', 'imports trainer.features'),
        ('features.py', 'def f():\n    from . import workflow', 'imports trainer.workflow'),
        ('nets/fpn.py', 'from ..augment.views import V', 'imports trainer.augment.views'),
        ('heads/base.py', 'from .uem.model import Uem', 'imports trainer.heads.uem.model'),
        ('heads/uem/fit.py', 'from ..rpl import block', 'imports trainer.heads.rpl.block'),
        ('heads/fusion/fit.py', 'from ..uem.model import Uem', ''),
        ('heads/uem/fit.py', 'from ..base import HeadFit', ''),
        ('attic.py', '', 'stands on no floor'),
    ],
)
def test_an_import_that_does_not_lead_down_is_named(tmp_path, module, text, wrong):
    around = dict.fromkeys(
        ('features.py', 'workflow.py', 'augment/views.py', 'heads/base.py', 'heads/uem/model.py',
         'heads/rpl/block.py'), '',
    )  # fmt: skip
    found = upward(house(tmp_path, {**around, module: text}), 'trainer')
    name = f'trainer.{module[:-3].replace("/", ".")}'
    assert found == ([f'{name} {wrong}'] if wrong else [])


def test_what_is_below_may_be_forbidden_all_the_same():
    graph = {'ood_perception.metrics.pixel': {'ood_perception.ranging.lens'}}
    assert upward(graph, 'ood_perception') == [
        'ood_perception.metrics.pixel imports ood_perception.ranging.lens'
    ]
