# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Where tests find the project and the road images, which are not part of it."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def data_root():
    """Return the folder of road images: OOD_DATA, else ../shared/data beside the project."""
    return Path(os.environ.get('OOD_DATA') or ROOT.parent / 'shared' / 'data')


def need_data(*parts):
    """Return a folder of the road images; skip the test where it does not exist."""
    folder = data_root().joinpath(*parts)
    if not folder.is_dir():
        pytest.skip(f'{folder} not found: set OOD_DATA to the folder with the road images')
    return folder
