# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The files for large images: well-formed, and within what the sysctl line of docs allows."""

import re
from xml.etree import ElementTree

from paths import ROOT

PAGE = (ROOT / 'docs' / 'ros.md').read_text(encoding='utf-8')
ALLOWED = int(re.search(r'net\.core\.rmem_max=(\d+)', PAGE)[1])


def tree(name):
    assert name in PAGE, 'docs/ros.md says how to use it'
    return ElementTree.parse(ROOT / 'config' / name).getroot()


def test_cyclone_asks_for_a_buffer_that_the_kernel_gives():
    """Cyclone DDS does not start where the kernel gives less than min."""
    found = tree('cyclonedds_large_images.xml').find('.//{*}SocketReceiveBufferSize')
    number, unit = re.fullmatch(r'(\d+)(MiB|MB)', found.get('min')).groups()
    assert 0 < int(number) * {'MiB': 1 << 20, 'MB': 10**6}[unit] <= ALLOWED


def test_fast_dds_asks_for_a_buffer_that_the_kernel_gives():
    buffers = tree('dds_large_images.xml').findall('.//{*}receiveBufferSize')
    assert buffers
    assert all(int(found.text) <= ALLOWED for found in buffers)
