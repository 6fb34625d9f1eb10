# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Compare an installed wheel with the checkout; run by wheel.sh in the wheel's environment."""

from __future__ import annotations

import sys
from importlib import import_module, metadata
from pathlib import Path

ROOT = Path(sys.argv[1])
PREFIX = Path(sys.prefix)
IGNORED = ('__pycache__', '.pyc')


def files(folder: Path) -> set[str]:
    """Return the files of a folder, relative to it."""
    found = {str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file()}
    return {name for name in found if not any(word in name for word in IGNORED)}


def main() -> None:
    """Raise AssertionError for a file that is missing or comes from elsewhere."""
    for name, own in (('ood_perception', 'ood_perception'), ('ood_perception_trainer', 'trainer')):
        package = Path(str(import_module(name).__file__)).parent
        assert package.is_relative_to(PREFIX), f'{name} is taken from {package}'
        missing = files(ROOT / own) - files(package)
        assert not missing, f'the wheel lacks {sorted(missing)}'
    share = PREFIX / 'share' / 'ood_perception'
    for folder in ('launch', 'config'):
        assert files(ROOT / folder) == files(share / folder), folder
    assert (PREFIX / 'share/ament_index/resource_index/packages/ood_perception').is_file()
    scripts = metadata.distribution('ood_perception').entry_points.select(group='console_scripts')
    for script in scripts:
        assert (PREFIX / 'bin' / script.name).is_file(), script.name
        place = PREFIX / 'lib' / 'ood_perception' / script.name
        assert place.stat().st_mode & 0o111, f'{place} cannot be run'
        assert '.ros.' in script.value or callable(script.load()), script.name
    print(f'{len(scripts)} programs, all files of the checkout')


main()
