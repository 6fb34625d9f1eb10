# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A manifest comes back as it was written, and a wrong one is refused with place and remedy."""

import copy
import json

import pytest
from bundles import write_tiny_bundle

from ood_perception.bundle.manifest import FORMAT_VERSION, FileSpec
from ood_perception.bundle.manifest_json import manifest_from_json, read_as, read_manifest
from ood_perception.errors import BundleError


@pytest.fixture(scope='module')
def good(tmp_path_factory):
    path = write_tiny_bundle(tmp_path_factory.mktemp('manifest') / 'tiny')
    return json.loads((path / 'manifest.json').read_text())


def changed(good, place, value):
    """Return a copy with one value replaced; place is a path of keys and indices."""
    result = copy.deepcopy(good)
    target = result
    for key in place[:-1]:
        target = target[key]
    if value is None:
        del target[place[-1]]
    else:
        target[place[-1]] = value
    return result


def test_a_manifest_survives_the_round_trip(good):
    manifest = manifest_from_json(good)

    assert manifest_from_json(json.loads(json.dumps(manifest.to_json()))) == manifest
    assert manifest.classes[0].color == (110, 110, 110)
    assert manifest.heads[0].compiled_classes == ('Road', 'Pavement', 'Sky')
    assert isinstance(manifest.input.anchor, float)


@pytest.mark.parametrize('version', [0, FORMAT_VERSION + 1, 99])
def test_another_format_is_refused_naming_both_and_the_remedy(good, version):
    with pytest.raises(BundleError) as caught:
        manifest_from_json(changed(good, ['format'], version))

    text = str(caught.value)
    assert f'format {version}' in text
    assert f'format {FORMAT_VERSION}' in text
    assert 'pack the bundle again' in text


@pytest.mark.parametrize(
    ('place', 'value', 'match'),
    [
        (['format'], '1', 'integer "format"'),
        (['format'], True, 'format is True'),
        (['name'], 7, 'name is 7, expected text'),
        (['name'], None, "lacks \\['name'\\]"),
        (['surprise'], 1, "unknown \\['surprise'\\]"),
        (['input', 'height'], '56', "height is '56', expected a whole"),
        (['input', 'height'], 57, 'no multiple of patch 14'),
        (['input', 'patch'], 0, 'no multiple of patch 0'),
        (['classes', 1, 'color'], [1, 2], 'expected 3 values'),
        (['input', 'views'], [{'name': 'far', 'width': 0}], "view 'far': .* width in \\(0, 1\\]"),
        (
            ['input', 'views'],
            [{'name': 'far', 'center_x': float('nan')}],
            'center_x is nan, expected a number',
        ),
        (['input', 'views'], [{'name': 'far'}, {'name': 'far'}], 'no two the same'),
        (['input', 'views'], [{'width': 0.5}], "lacks \\['name'\\]"),
        (['input', 'views'], [{'name': 'far', 'scale': 2.0}], "unknown \\['scale'\\]"),
        (['input', 'views'], [{'name': 'far', 'width': '1'}], "width is '1', expected a number"),
        (['input', 'views'], [{'name': str(i)} for i in range(9)], '9 views, at most 8'),
        (['input', 'views'], 'far', "views is 'far', expected a list"),
        (['classes', 1, 'modelled'], 1, 'modelled is 1, expected true or false'),
        (['classes'], [], '0 stages|classes'),
        (['heads', 0, 'compiled_classes'], ['Raod'], 'Raod'),
        (['heads', 0, 'compiled_classes'], [], '0 classes'),
        (['heads', 0, 'surprisal'], 'score', "outputs \\['score'\\] of no stage"),
        (['heads'], [], '0 heads'),
        (['in_distribution'], ['Moon'], 'Moon'),
        (['stages', 1, 'inputs'], ['tokens_5'], 'stage head reads tokens_5'),
        (['stages', 1, 'reduced_precision'], True, 'ruins its score'),
        (['stages', 0, 'file'], '../backbone.onnx', 'leaves the bundle'),
        (['stages', 0, 'external_data'], '/etc/passwd', 'leaves the bundle'),
        (['stages', 0, 'file'], '', '\'\' not in "files"'),
        (['golden', 'file'], 'a\\\\b.npz', 'leaves the bundle'),
        (['files', 'head.onnx'], None, 'head.onnx not in "files"'),
        (['heads', 0, 'set_calibration'], 'held.npz', 'held.npz not in "files"'),
        (
            ['precisions'],
            {
                'int8': {
                    'average_precision_loss': 0,
                    'interval': [0, 0],
                    'surprisal_tolerance': 1,
                    'label_agreement': 1,
                    'file': 'ranges.json',
                }
            },
            'ranges.json not in "files"',
        ),
        (['files', 'head.onnx', 'sha256'], 5, 'sha256 is 5, expected text'),
        (['licences'], 'MIT', "licences is 'MIT', expected a list"),
        (['provenance'], [], 'provenance is \\[\\], expected keys and values'),
    ],
)
def test_a_wrong_field_is_refused_by_name(good, place, value, match):
    with pytest.raises(BundleError, match=match):
        manifest_from_json(changed(good, place, value), 'somewhere/manifest.json')


def graph_of(size, total):
    """Return what makes a manifest's first graph so large, and all of its files together."""

    def change(values):
        values['stages'][0]['external_data'] = 'backbone.data'
        files = values['files'] = {k: {**v, 'size': 0} for k, v in values['files'].items()}
        files['backbone.onnx']['size'] = size
        files['backbone.data'] = {'sha256': '0' * 64, 'size': total - size}

    return change


def sized(height, width, patch=16, upsampling=1):
    def change(values):
        values['input'].update(height=height, width=width, patch=patch)
        values['heads'][0]['upsampling'] = upsampling

    return change


def named(kind, count):
    def change(values):
        first = {**values[kind][0], 'name': 'first'}
        values[kind] += [{**first, 'name': str(i)} for i in range(count - len(values[kind]))]

    return change


BOUNDS = {  # what is just taken, what is just refused, how that begins
    'pixels': (sized(8192, 4096), sized(8192, 4112), 'input 8192 x 4112'),
    'patches': (sized(8192, 4096, 16, 16), sized(8192, 4096, 16, 17), 'score grid of'),
    'cells': (sized(64, 32, 1, 128), sized(64, 32, 1, 129), 'score grid of 34080768'),
    'heads': (named('heads', 256), named('heads', 257), '257 of HeadSpec, at most 256'),
    'graph': (graph_of(512 << 20, 1 << 30), graph_of((512 << 20) + 1, 1 << 30), 'a graph of'),
    'bundle': (graph_of(1, 8 << 30), graph_of(1, (8 << 30) + 1), 'files of 8589934593 bytes'),
    'height': (sized(1, 1, 1), sized(0, 1, 1), 'no multiple'),
    'upsampling': (sized(16, 16), sized(16, 16, upsampling=0), 'upsampling 0'),
    'dark': (
        lambda values: values['classes'][0].update(color=[0, 0, 0]),
        lambda values: values['classes'][0].update(color=[0, 0, -1]),
        'colours',
    ),
    'bright': (
        lambda values: values['classes'][0].update(color=[255, 255, 255]),
        lambda values: values['classes'][0].update(color=[256, 255, 255]),
        'colours',
    ),
    'left': (
        lambda values: values['input'].update(anchor=0),
        lambda values: values['input'].update(anchor=-0.1),
        'anchor -0.1',
    ),
    'right': (
        lambda values: values['input'].update(anchor=1),
        lambda values: values['input'].update(anchor=1.1),
        'anchor 1.1',
    ),
    'empty file': (
        lambda values: values['files']['MODEL_CARD.md'].update(size=0),
        lambda values: values['files']['MODEL_CARD.md'].update(size=-1),
        'has size -1',
    ),
    'checksum': (
        lambda values: values['files']['MODEL_CARD.md'].update(sha256='0' * 64),
        lambda values: values['files']['MODEL_CARD.md'].update(sha256='0' * 63),
        'sha256',
    ),
}


@pytest.mark.parametrize('bound', BOUNDS)
def test_bounds_are_taken_and_what_is_beyond_is_refused(good, bound):
    within, beyond, match = BOUNDS[bound]
    values = copy.deepcopy(good)
    within(values)
    manifest_from_json(values)
    values = copy.deepcopy(good)
    beyond(values)
    with pytest.raises(BundleError, match=match):
        manifest_from_json(values)


def test_another_file_of_a_bundle_is_read_as_what_it_is(tmp_path):
    file = tmp_path / 'one.json'
    file.write_text('{"sha256": "0", "size": 5}')
    assert read_as(FileSpec, file) == FileSpec('0', 5)
    for text, match in (('{"size": 5}', "lacks \\['sha256'\\].*pack it again"), ('{', 'copy the')):
        file.write_text(text)
        with pytest.raises(BundleError, match=match):
            read_as(FileSpec, file)


def test_a_missing_or_broken_file_is_named(tmp_path):
    with pytest.raises(BundleError, match='is no bundle'):
        read_manifest(tmp_path / 'manifest.json')
    (tmp_path / 'manifest.json').write_text('{"format": 1,')
    with pytest.raises(BundleError, match='cannot be read'):
        read_manifest(tmp_path / 'manifest.json')
    (tmp_path / 'manifest.json').write_bytes(b'\xff\xfe\x00')
    with pytest.raises(BundleError, match='cannot be read'):
        read_manifest(tmp_path / 'manifest.json')
    (tmp_path / 'manifest.json').write_text('[1]')
    with pytest.raises(BundleError, match='not a bundle manifest'):
        read_manifest(tmp_path / 'manifest.json')
