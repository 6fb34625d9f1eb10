# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What is said about installing works: no index has the package, and every extra is listed."""

import re
import subprocess
import xml.etree.ElementTree as ET

import pytest
from paths import ROOT

PAGE = ROOT / 'docs' / 'install.md'


def test_nothing_says_to_install_the_package_from_an_index():
    listed = subprocess.run(['git', 'ls-files', '-z'], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip('no git checkout')
    wrong = re.compile(r"pip install\s+['\"]?ood[_-]perception(\[|\b)(?!-)")
    for name in listed.stdout.split('\0'):
        path = ROOT / name
        if path in (PAGE, ROOT / 'test/docs/test_install.py') or not path.is_file():
            continue
        text = path.read_bytes().decode('utf-8', 'ignore')
        assert not wrong.search(text), name


def test_the_page_lists_every_extra():
    source = (ROOT / 'setup.py').read_text()
    table = source[source.index('extras_require=') : source.index('zip_safe')]
    extras = set(re.findall(r"^ +'([\w-]+)':", table, re.M)) - {'ros-lyrical'}  # no wheels yet
    rows = re.findall(r'^\| (`.*?) \|', PAGE.read_text(), re.M)
    assert set(re.findall(r'`([\w-]+)`', ' '.join(rows))) == extras


def test_the_build_farm_takes_every_dependency():
    """It refuses keys that pip serves, and one key twice."""
    root = ET.parse(ROOT / 'package.xml').getroot()
    keys = [one.text for one in root if one.tag.endswith('depend')]
    assert len(set(keys)) == len(keys)
    assert not [key for key in keys if key.endswith('-pip')]
    version = re.search(r"VERSION = '(.*)'", (ROOT / 'setup.py').read_text())[1]
    assert root.findtext('version') == version
