# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What the package's metadata asks for, against pip's own reading of it."""

import re
import sys
from importlib import metadata
from pathlib import Path

import pytest

from ood_perception import requirements as module
from ood_perception.requirements import Requirement, has_module, install_command, requirements

LINES = [
    'numpy<3,>=1.26',
    'jinja2<4,>=3.0; extra == "report"',
    'backports.zstd<2,>=1; python_version < "3.2" and extra == "bags"',
    'later<2,>=1; python_version >= "3.2" and extra == "bags"',
    'rtx>=1.7; (sys_platform == "plan9" and python_version < "99") and extra == "rtx"',
    'plain; extra == "plain"',
]


@pytest.fixture
def lines(monkeypatch):
    monkeypatch.setattr(metadata, 'requires', lambda _: LINES)


def test_lines_of_other_machines_are_left_out(lines):
    assert [(str(one), one.extra) for one in requirements()] == [
        ('numpy<3,>=1.26', ''),
        ('jinja2<4,>=3.0', 'report'),
        ('later<2,>=1', 'bags'),
        ('plain', 'plain'),
    ]


def test_an_extra_is_installed_by_its_packages(lines):
    assert install_command('report') == "pip install 'jinja2<4,>=3.0'"
    assert install_command('plain') == 'pip install plain'
    assert install_command('nothing') == "pip install '.[nothing]' in a checkout"


def test_a_checkout_that_was_never_installed_says_what_works_there(monkeypatch):
    monkeypatch.setattr(module, 'NAME', 'no-such-distribution')
    assert requirements() == []
    assert install_command('bags') == "pip install '.[bags]' in a checkout"


@pytest.mark.parametrize(
    ('version', 'versions', 'met'),
    [
        ('3.10.1', '>=3.9,<3.11', True),
        ('3.9', '>=3.10', False),
        ('2.13.0+cpu', '<3,>=2.6', True),
        ('3.0', '<3', False),
        ('1.0', '', True),
    ],
)
def test_versions_are_compared_by_number(monkeypatch, version, versions, met):
    monkeypatch.setattr(metadata, 'version', lambda _: version)
    assert Requirement('some', versions).is_met is met


def test_a_package_without_metadata_is_found_by_its_module(monkeypatch):
    """As apt's OpenCV, and onnxruntime-gpu for onnxruntime."""
    monkeypatch.setitem(module._MODULES, 'not-json', 'json')
    found = Requirement('not-json', '>=99')
    assert (found.installed, found.is_met) == ('?', True)
    assert not Requirement('no-such-package', '').is_met
    assert not has_module('no_such.module')


def test_this_environment_is_read_as_pip_reads_it():
    """The lines of the real metadata, where it is there: packaging is the oracle."""
    packaging = pytest.importorskip('packaging.requirements')
    try:
        lines = metadata.requires(module.NAME)
    except metadata.PackageNotFoundError:
        pytest.skip('ood_perception is used from a checkout that was not installed')
    expected = set()
    for line in lines:
        one = packaging.Requirement(line)
        for extra in {'', *(metadata.metadata(module.NAME).get_all('Provides-Extra'))}:
            if one.marker is None and extra:
                continue
            if one.marker is None or (extra and one.marker.evaluate({'extra': extra})):
                expected.add((one.name, str(one.specifier), extra))
    found = {
        (one.name, str(packaging.Requirement(str(one)).specifier), one.extra)
        for one in requirements()
    }
    assert found == expected


def test_it_needs_the_standard_library_alone():
    source = Path(module.__file__).read_text(encoding='utf-8')
    words = re.findall(r'^(?:import|from) (\w+)', source, re.M)
    assert words
    assert set(words) <= set(sys.stdlib_module_names)
