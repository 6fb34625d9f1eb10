# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Read the interface of a TensorRT Python binding, whose libraries need not be there, as JSON.

    pip download --no-deps tensorrt-cu13-bindings==11.4.0.106
    python -m zipfile -e tensorrt_cu13_bindings-*.whl unpacked
    python test/tensorrt_api/read_bindings.py unpacked tensorrt_bindings > 11.4.json

NVIDIA's libraries are not on PyPI, the bindings are. Empty libraries in their place let the
bindings be imported and looked at; nothing of TensorRT can be run that way. Needs nm and cc.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

CLASSES = (
    'Builder', 'BuilderFlag', 'ComputeCapability', 'DataType',
    'DynamicShapesKernelSpecializationStrategy', 'EngineInspector', 'HardwareCompatibilityLevel',
    'IBuilderConfig', 'ICudaEngine', 'IExecutionContext', 'IHostMemory', 'ILayer', 'ILogger',
    'INetworkDefinition', 'IOptimizationProfile', 'IProgressMonitor', 'IRuntimeCache',
    'IRuntimeConfig', 'ITensor', 'ITimingCache', 'LayerInformationFormat', 'MemoryPoolType',
    'NetworkDefinitionCreationFlag', 'OnnxParser', 'ParserError', 'ProfilingVerbosity', 'Runtime',
    'TensorIOMode',
)  # fmt: skip
FOREIGN = re.compile(r'@|^_?Py|^__')  # symbols of libc and Python


def make_empty_libraries(binding: Path, folder: Path) -> None:
    """Write libraries with the names and symbols that a binding asks NVIDIA's for."""
    needed = subprocess.run(
        ['readelf', '-d', str(binding)], capture_output=True, text=True, check=True
    ).stdout
    listed = subprocess.run(
        ['nm', '-D', '--undefined-only', str(binding)], capture_output=True, text=True, check=True
    ).stdout
    symbols = [line.split()[-1] for line in listed.splitlines()]
    code = ''.join(
        f'char {name}[4096];\n' if name.startswith('_ZT') else f'void *{name}() {{ return 0; }}\n'
        for name in symbols
        if not FOREIGN.search(name)
    )
    for index, library in enumerate(re.findall(r'\[(libnv\w+\.so\.\d+)\]', needed)):
        source = folder / f'{library}.c'
        source.write_text('' if index else code)
        command = ['cc', '-w', '-shared', '-fPIC', str(source), '-o', str(folder / library)]
        subprocess.run([*command, f'-Wl,-soname,{library}'], check=True)


def arguments(text: str | None, name: str) -> list[int] | None:
    """Return least and greatest number of arguments after self, from pybind11's docstring."""
    counts = []
    for line in (text or '').splitlines():
        match = re.match(rf'(?:\d+\. )?{re.escape(name)}\((.*)\) -> ', line.strip())
        if match and not match[1].startswith('*args'):
            # commas inside of brackets do not part arguments
            flat = re.sub(r'<[^<>]*>|\[[^\[\]]*\]', '', match[1])
            parts = [part.strip() for part in flat.split(',') if part.strip()]
            parts = [part for part in parts if not part.startswith('self')]
            counts.append((sum('=' not in part for part in parts), len(parts)))
    if not counts:
        return None
    return [min(least for least, _ in counts), max(most for _, most in counts)]


def members_of(kind: type) -> dict[str, object]:
    """Return per member 'value', 'property', 'read-only', 'class' or its argument counts."""
    found: dict[str, object] = {}
    enumeration = getattr(kind, '__members__', None)
    for name in sorted(dir(kind)):
        if name.startswith('_') or (enumeration is not None and name in ('name', 'value')):
            continue
        member = inspect.getattr_static(kind, name)
        if enumeration is not None and name in enumeration:
            found[name] = 'value'
        elif isinstance(member, property):
            found[name] = 'property' if member.fset else 'read-only'
        elif inspect.isclass(getattr(kind, name)):
            found[name] = 'class'
        else:
            found[name] = arguments(getattr(kind, name).__doc__, name) or 'method'
    return found


def main() -> int:
    """Print the interface; start again with the empty libraries where they are needed."""
    folder, package = Path(sys.argv[1]).resolve(), sys.argv[2]
    binding = next((folder / package).glob('*.so'))
    if 'LIBRARIES_ARE_EMPTY' not in os.environ:
        with tempfile.TemporaryDirectory() as empty:
            make_empty_libraries(binding, Path(empty))
            environment = {**os.environ, 'LD_LIBRARY_PATH': empty, 'LIBRARIES_ARE_EMPTY': '1'}
            return subprocess.run([sys.executable, *sys.argv], env=environment).returncode
    sys.path.insert(0, str(folder))
    module = importlib.import_module(f'{package}.{binding.name.split(".")[0]}')
    kinds = {name: getattr(module, name) for name in CLASSES if hasattr(module, name)}
    lines = [
        f' {json.dumps(name)}: '
        + json.dumps(members_of(kind), sort_keys=True, separators=(',', ':'))
        for name, kind in sorted(kinds.items())
    ]
    print('{\n' + ',\n'.join(lines) + '\n}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
