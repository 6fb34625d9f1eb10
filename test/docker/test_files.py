# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The container's files fit each other and the package; they are built where there is docker."""

import re

import pytest
from paths import ROOT

yaml = pytest.importorskip('yaml')

DOCKER = ROOT / 'docker'
DOCKERFILE = (DOCKER / 'Dockerfile').read_text(encoding='utf-8')
STAGES = set(re.findall(r'^FROM \S+ AS (\w+)$', DOCKERFILE, re.M))
FILES = ('compose.yaml', 'compose.gpu.yaml')


def services(name):
    content = yaml.safe_load((DOCKER / name).read_text(encoding='utf-8'))
    return content['services']


@pytest.mark.parametrize('name', FILES)
def test_images_are_stages_of_the_dockerfile(name):
    for service in services(name).values():
        target = service['build']['target']
        assert target in STAGES
        assert service['image'] == f'ood_perception:{target}'
    assert {'cpu', 'tensorrt', 'bridge'} <= STAGES


@pytest.mark.parametrize('text', [*((DOCKER / name).read_text() for name in FILES), DOCKERFILE])
def test_launch_files_and_arguments_exist(text):
    words = re.findall(r'\w+\.launch\.py|(?<=[" ])\w+(?=:=)', text)
    files = {word for word in words if word.endswith('.py')}
    assert files == {'road_anomaly.launch.py'}
    sources = [(ROOT / 'launch' / name).read_text() for name in (*files, 'dds.launch.py')]
    for argument in set(words) - files - {'__ns', 'video_device'}:  # the camera driver's own
        assert any(f"'{argument}'" in source for source in sources), argument


def test_what_is_mounted_and_copied_exists():
    for service in services('compose.yaml').values():
        for volume in service['volumes']:
            source = volume.split(':')[0]
            assert '/' not in source or (DOCKER / source).exists(), source
    for name in re.findall(r'^COPY (?!--)(\S+) ', DOCKERFILE, re.M):
        assert (ROOT / name).exists()


def test_the_extras_that_are_installed_are_ours():
    source = (ROOT / 'setup.py').read_text()
    wanted = re.findall(r'\$\{wheel\}\[([\w,-]+)\]', DOCKERFILE)
    assert wanted
    for extra in ','.join(wanted).split(','):
        assert f"'{extra}':" in source, extra


def test_nothing_that_a_wheel_is_made_of_is_left_out_of_the_context():
    ignored = (ROOT / '.dockerignore').read_text().splitlines()
    made_of = {'setup.py', 'setup.cfg', 'pyproject.toml', 'MANIFEST.in', 'README.md', 'LICENSE',
               'NOTICE', 'package.xml', 'resource', 'config', 'launch', 'ood_perception',
               'trainer', 'CHANGELOG.md'}  # fmt: skip
    assert not made_of & set(ignored)
    assert all((ROOT / name).exists() for name in made_of)
