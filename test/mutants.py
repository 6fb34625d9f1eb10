# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Mutation testing (`make mutants`): one change at a time in a module, which its tests must notice.

    python test/mutants.py [module ...]

A mutant is a comparison, an arithmetic or logical operator, a sign or a number that is another
one, or `return None`; texts and what is raised stay. Each lives in a fork of a process that has
collected the tests: the module's functions get the mutant's code, so that whoever imported them
has them, too. The tests run from the cheapest on, up to the first that fails. What survives is
printed; docs/reliability.md says why it may.
"""

import ast
import copy
import functools
import importlib
import json
import os
import resource
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

MODULES = {
    'ood_perception.postprocess.mask': 'postprocess/test_mask postprocess/test_ground_edge',
    'ood_perception.postprocess.roi': (
        'postprocess/test_roi postprocess/test_ground_edge postprocess/test_roi_files'
    ),
    'ood_perception.postprocess.roi_files': 'postprocess/test_roi_files postprocess/test_roi',
    'ood_perception.postprocess.calibration': 'postprocess/test_calibration',
    'ood_perception.image.geometry': 'image/test_geometry image/test_views',
    'ood_perception.bundle.manifest_json': 'bundle/test_manifest bundle/test_bombs',
}
COMPARISONS = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt), ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,),
}  # fmt: skip
ARITHMETIC = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
    ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
LEFT_OUT = (ast.Raise, ast.JoinedStr, ast.Import, ast.ImportFrom)
FIELDS_LEFT_OUT = ('annotation', 'returns', 'decorator_list', 'bases')
MOST_BYTES = 12 << 30


def places(node):
    """Yield the nodes that may change, always in the same order."""
    if isinstance(node, LEFT_OUT):
        return
    yield node
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            is_text = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
            if isinstance(child, ast.AST) and name not in FIELDS_LEFT_OUT and not is_text:
                yield from places(child)


def changes(node):
    """Yield (what it is in words, the node that takes its place) for a node."""

    def other(text, **fields):
        new = copy.deepcopy(node)
        for name, value in fields.items():
            setattr(new, name, value)
        return text, new

    if isinstance(node, ast.Compare):
        for place, kind in enumerate(node.ops):
            for new in COMPARISONS[type(kind)]:
                ops = [*node.ops[:place], new(), *node.ops[place + 1 :]]
                yield other(f'{type(kind).__name__} -> {new.__name__}', ops=ops)
    elif isinstance(node, (ast.BinOp, ast.AugAssign, ast.BoolOp)) and type(node.op) in ARITHMETIC:
        new = ARITHMETIC[type(node.op)]
        yield other(f'{type(node.op).__name__} -> {new.__name__}', op=new())
    elif isinstance(node, ast.UnaryOp):
        yield f'without {type(node.op).__name__}', copy.deepcopy(node.operand)
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield other(f'-> {not node.value}', value=not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        for value in (node.value + 1, node.value - 1):
            yield other(f'-> {value}', value=value)
    elif isinstance(node, ast.Return) and node.value is not None:
        yield other('return None', value=ast.Constant(None))


class Swap(ast.NodeTransformer):
    """Puts one node in the place of another."""

    def __init__(self, old, new):
        self.old, self.new = old, new

    def visit(self, node):
        return self.new if node is self.old else super().generic_visit(node)


def mutants(source):
    """Yield (line, text, tree) of every mutant of a module's source."""
    for number, node in enumerate(places(ast.parse(source))):
        for text, new in changes(node):
            tree = ast.parse(source)
            old = next(one for place, one in enumerate(places(tree)) if place == number)
            code = ast.unparse(old).splitlines()[0][:70]
            tree = ast.fix_missing_locations(Swap(old, ast.copy_location(new, old)).visit(tree))
            yield node.lineno, f'{code}: {text}', tree


def function_of(value):
    """Return the function in a method, property or cache; None for anything else."""
    for name in ('fget', 'func', '__func__', '__wrapped__'):
        if not isinstance(value, types.FunctionType):
            value = getattr(value, name, value)
    return value if isinstance(value, types.FunctionType) else None


def graft(old, new, name):
    """Let what is in one namespace be as in another, in place."""
    for key, value in list(new.items()):
        if isinstance(value, type) and value.__module__ == name:
            if isinstance(old.get(key), type):
                graft(vars(old[key]), vars(value), name)
            continue
        ours, theirs = function_of(old.get(key)), function_of(value)
        if ours and theirs and theirs.__module__ == name:
            if key != '__init__':
                ours.__code__ = theirs.__code__
            ours.__defaults__, ours.__kwdefaults__ = theirs.__defaults__, theirs.__kwdefaults__
        elif isinstance(old, dict) and not callable(value) and not key.startswith('__'):
            old[key] = value


def load(module, tree):
    """Put a mutant in the place of a module that others have imported."""
    space = types.ModuleType(module.__name__)
    space.__file__, space.__package__ = module.__file__, module.__package__
    sys.modules[module.__name__] = space  # dataclasses look there
    exec(compile(tree, module.__file__, 'exec'), vars(space))
    sys.modules[module.__name__] = module
    graft(vars(module), vars(space), module.__name__)
    for value in vars(module).values():
        if isinstance(value, functools._lru_cache_wrapper):
            value.cache_clear()


def tried(session, items, prepare, seconds):
    """Run tests in a fork until one fails; return (whether none did, CPU seconds of each)."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1), os.dup2(quiet, 2)
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
            resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
            prepare()
            used = []
            for item, following in zip(items, [*items[1:], None], strict=True):
                begin = time.process_time()
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                used.append(time.process_time() - begin)
                if session.testsfailed:
                    break
            os.write(writing, json.dumps(used).encode())
            status = int(bool(session.testsfailed))
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, 'rb') as pipe:
        used = json.loads(pipe.read() or b'[]')
    return os.waitpid(child, 0)[1] == 0, used


class Mutation:
    """A pytest plugin that runs the collected tests once a mutant."""

    def __init__(self, module):
        self.module = module

    def pytest_runtestloop(self, session):
        module = importlib.import_module(self.module)
        fine, used = tried(session, session.items, lambda: None, 1800)
        if not fine:
            raise pytest.UsageError(f'the tests of {self.module} fail without a mutant')
        order = sorted(range(len(used)), key=used.__getitem__)
        items, limit = [session.items[place] for place in order], int(60 + 3 * sum(used))
        count = survivors = 0
        for line, text, tree in mutants(Path(module.__file__).read_text()):
            prepare = functools.partial(load, module, tree)
            count += 1
            if tried(session, items, prepare, limit)[0]:
                survivors += 1
                print(f'\n{Path(module.__file__).name}:{line}: {text}', flush=True)
        print(f'\n{self.module}: {count} mutants, {survivors} survive', flush=True)
        return True


def main(names):
    if len(names) != 1:
        for name in names or MODULES:
            subprocess.run([sys.executable, __file__, name], check=True)
        return 0
    tests = [f'test/{path}.py' for path in MODULES[names[0]].split()]
    options = ['-q', '-s', '-W', 'ignore', '-p', 'no:cacheprovider', '-p', 'no:faulthandler']
    return pytest.main([*options, *tests], plugins=[Mutation(names[0])])


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
