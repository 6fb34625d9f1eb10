# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Bundles that are small on disk and large in memory, or that lead to files of somebody else."""

import json
import os
import shutil
import struct
import zipfile

import numpy as np
import onnx
import pytest
from bundles import write_manifest, write_tiny_bundle
from memory import peak_mib
from onnx import TensorProto, helper

from ood_perception.bundle.store import load_bundle
from ood_perception.engines.golden import read_golden
from ood_perception.errors import BundleError


@pytest.fixture
def own(tiny_bundle, tmp_path, monkeypatch):
    """A bundle and a cache that the test may change."""
    monkeypatch.setenv('OOD_PERCEPTION_CACHE', str(tmp_path / 'cache'))
    return shutil.copytree(tiny_bundle, tmp_path / 'own')


def zipped(folder, target, more=()):
    with zipfile.ZipFile(target, 'w', zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)
        for name, content in more:
            archive.writestr(name, content)
    return target


def manifest_of(folder):
    return json.loads((folder / 'manifest.json').read_text())


def unpacked_files(tmp_path):
    return [path for path in (tmp_path / 'cache').rglob('*') if path.suffix != '.lock']


def unpacked_bytes(tmp_path):
    return sum(path.stat().st_size for path in unpacked_files(tmp_path) if path.is_file())


def test_what_the_manifest_does_not_list_is_not_unpacked(own, tmp_path):
    file = zipped(own, tmp_path / 'own.zip', [('zeros', bytes(32 << 20)), ('a/b', 'x')])

    root = load_bundle(file).root

    assert sorted(path.name for path in root.iterdir()) == sorted(os.listdir(own))
    assert unpacked_bytes(tmp_path) < 1 << 20


def test_a_listed_file_that_unpacks_to_a_thousandfold_is_refused(own, tmp_path):
    (own / 'zeros').write_bytes(bytes(80 << 20))
    write_manifest(own, manifest_of(own))
    file = zipped(own, tmp_path / 'own.zip')
    shutil.rmtree(own)

    with pytest.raises(BundleError, match=r'own.zip unpacks \d+ bytes to \d+'):
        load_bundle(file)
    assert unpacked_bytes(tmp_path) == 0


def test_a_member_of_another_size_than_listed_is_refused_before_it_is_unpacked(own, tmp_path):
    (own / 'MODEL_CARD.md').write_bytes(bytes(32 << 20))

    with pytest.raises(BundleError, match=r'MODEL_CARD.md has 33554432 bytes, its manifest says'):
        load_bundle(zipped(own, tmp_path / 'own.zip'))
    assert unpacked_bytes(tmp_path) == 0


def test_more_than_the_disk_holds_is_refused_before_it_is_unpacked(own, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage._replace(free=1000))

    with pytest.raises(BundleError, match='the cache has room for 1000'):
        load_bundle(zipped(own, tmp_path / 'own.zip'))


def test_a_hundred_thousand_members_are_refused_unseen(own, tmp_path):
    file = zipped(own, tmp_path / 'own.zip')
    with zipfile.ZipFile(file, 'a') as archive:
        for number in range(100_000):
            archive.writestr(f'{number:06}', b'')

    with pytest.raises(BundleError, match=r'own.zip is damaged \(its directory takes more than'):
        load_bundle(file)


def test_a_member_that_is_there_twice_is_refused(own, tmp_path):
    file = tmp_path / 'own.zip'
    with pytest.warns(UserWarning, match='Duplicate'):
        zipped(own, file, [('manifest.json', '{}')])

    with pytest.raises(BundleError, match='twice'):
        load_bundle(file)


def test_a_folder_of_somebody_else_in_the_cache_is_not_taken(own, tmp_path):
    """Whole, with fitting checksums, at the place of this file's content: another bundle."""
    file = zipped(own, tmp_path / 'own.zip')
    root = load_bundle(file).root
    shutil.rmtree(root)
    write_tiny_bundle(root, seed=7)

    assert load_bundle(file).sha256 == load_bundle(own).sha256


@pytest.mark.parametrize('what', ['flip', 'cut', 'gone', 'file', 'link', 'empty', 'manifest'])
def test_what_rotted_in_the_cache_is_unpacked_again(own, tmp_path, what):
    file = zipped(own, tmp_path / 'own.zip')
    root = load_bundle(file).root
    graph = root / 'head.onnx'
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    if what in ('file', 'link', 'empty'):
        shutil.rmtree(root)
    {
        'flip': lambda: graph.write_bytes(data),
        'cut': lambda: graph.write_bytes(data[:-9]),
        'gone': graph.unlink if graph.exists() else None,
        'file': lambda: root.write_text('x'),
        'link': lambda: root.symlink_to(tmp_path / 'own'),
        'empty': root.mkdir,
        'manifest': lambda: (root / 'manifest.json').write_text('{'),
    }[what]()

    again = load_bundle(file)

    assert again.root == root
    assert not root.is_symlink()
    assert graph.read_bytes() == (own / 'head.onnx').read_bytes()
    assert again.sha256 == load_bundle(own).sha256


def text_of(own, change):
    values = manifest_of(own)
    change(values)
    return json.dumps(values)


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('[' * 100_000, 'nested'),
        ('{"a":' * 200 + '1' + '}' * 200, 'nested'),
        ('{"format": 1' + '0' * 5000 + '}', 'manifest.json'),
        ('{"format": 100000000000000000000}', '64 bits'),
        ('{"format": 1e999}', 'too large'),
        ('{"format": NaN}', 'NaN'),
        ('{"format": 1, "format": 2}', 'twice'),
        ('{"format": "\\ud800"}', 'surrogates'),
        (' ' * (5 << 20), '4 MiB'),
        ('{"format": 1, "name": "' + 'n' * (5 << 20) + '"}', '4 MiB'),
    ],
    ids=lambda value: str(value)[:12],
)
@pytest.mark.parametrize('packed', [False, True])
def test_a_manifest_that_a_parser_chokes_on_is_one_error(own, tmp_path, text, words, packed):
    (own / 'manifest.json').write_text(text)
    place = zipped(own, tmp_path / 'own.zip') if packed else own

    with pytest.raises(BundleError, match=words) as caught:
        load_bundle(place)
    assert len(str(caught.value)) < 5000


@pytest.mark.parametrize(
    'change',
    [
        lambda values: values['input'].update(height=1 << 62, width=1 << 62, patch=1),
        lambda values: values['input'].update(height=14 << 20, width=14 << 20),
        lambda values: values['heads'][0].update(upsampling=1 << 62),
        lambda values: values['files']['head.onnx'].update(size=-1),
        lambda values: values['files']['head.onnx'].update(size=1 << 62),
        lambda values: values['files'].update({'a\x1b[2J': {'sha256': '0' * 64, 'size': 1}}),
        lambda values: values['files'].update({'a' * 300: {'sha256': '0' * 64, 'size': 1}}),
        lambda values: values['files'].update({'\u202egpj': {'sha256': '0' * 64, 'size': 1}}),
        lambda values: values['files'].update({'head.onnx/x': {'sha256': '0' * 64, 'size': 1}}),
    ],
)
def test_numbers_and_names_that_no_bundle_has_are_one_error(own, tmp_path, change):
    (own / 'manifest.json').write_text(text_of(own, change))

    for place in (own, zipped(own, tmp_path / 'own.zip')):
        with pytest.raises(BundleError) as caught:
            load_bundle(place)
        assert str(caught.value).isprintable()


def with_arrays(own, **arrays):
    """Replace golden.npz by a packed one; of (header's shape, bytes) the header may lie."""
    with zipfile.ZipFile(own / 'golden.npz', 'w', zipfile.ZIP_DEFLATED) as archive:
        for name, value in arrays.items():
            with archive.open(f'{name}.npy', 'w', force_zip64=True) as member:
                if isinstance(value, tuple):
                    shape, kind, content = value
                    header = {'descr': kind, 'fortran_order': False, 'shape': shape}
                    np.lib.format.write_array_header_1_0(member, header)
                    for block in content:
                        member.write(block)
                elif isinstance(value, bytes):
                    member.write(value)
                else:
                    np.save(member, value)
    write_manifest(own, manifest_of(own))
    bundle = load_bundle(own)
    return bundle, bundle.manifest.heads[0]


def golden_arrays(**other):
    values = {
        'image': np.zeros((2, 56, 84, 3), np.uint8),
        'in_distribution': np.ones(3, np.float32),
        'surprisal': np.zeros((2, 8, 12), np.float32),
        'labels': np.zeros((2, 8, 12), np.uint8),
    }
    return {**values, **other}


@pytest.mark.parametrize(
    'arrays',
    [
        {'image': ((1 << 40,), '|u1', [b'1'])},
        {'image': ((1 << 30, 1 << 31), '|u1', [b'1'])},
        {'image': ((3 << 30,), '|u1', (bytes(1 << 20) for _ in range(600)))},
        {'image': ((0, 1 << 62), '|u1', [])},
        {'image': ((-1, 4), '|u1', [b'1'])},
        {'image': ((1 << 62,), '|V0', [])},
        {'image': ((1,), '|O', [b'1'])},
        {'image': ((4,), '<f4', [b'1'])},
        {'surprisal': ((2, 8, 12), '<f4', [bytes(4 * 2 * 8 * 12 + 1)])},
    ],
    ids=range(9),
)
def test_an_array_that_is_not_what_its_header_says_is_refused_unseen(own, arrays):
    bundle, head = with_arrays(own, **golden_arrays(**arrays))

    with peak_mib() as used, pytest.raises(BundleError, match=r'golden.npz cannot be read'):
        read_golden(bundle, head)
    assert used() < 64


@pytest.mark.parametrize(
    'header',
    ['(' * 9000, '-' * 9000 + '1', '[' * 150 + '"', "{'descr': [()]}", '5', '\\'],
    ids=range(6),
)
def test_a_header_that_pythons_parser_does_not_survive_is_refused(own, header):
    text = header.encode()
    whole = b'\x93NUMPY\x01\x00' + struct.pack('<H', len(text)) + text + bytes(64)
    bundle, head = with_arrays(own, **golden_arrays(image=whole))
    with pytest.raises(BundleError, match=r'golden.npz cannot be read'):
        read_golden(bundle, head)


NAME, LZMA, UTF8 = b'MODEL_CARD.md', struct.pack('<H', 14), struct.pack('<H', 0x800)


@pytest.mark.parametrize(
    ('place', 'new'),
    [
        (10, LZMA),
        (8, UTF8),
        (46, b'\xff'),
        (42, b'\xff' * 4),
        (24, b'\xff' * 4),
        (30, b'\xff' * 2),
    ],
    ids=['lzma', 'utf-8', 'name', 'offset', 'size', 'extra'],
)
def test_a_zip_whose_directory_lies_is_refused(own, tmp_path, place, new):
    """One entry of the central directory (APPNOTE 4.3.12) says something else."""
    data = bytearray(zipped(own, tmp_path / 'own.zip').read_bytes())
    entry = data.rindex(NAME) - 46
    if place == 46:  # no UTF-8, in a name that says it is
        data[entry + 8 : entry + 10] = UTF8
    data[entry + place : entry + place + len(new)] = new
    (tmp_path / 'own.zip').write_bytes(data)
    if new == UTF8:  # ASCII is UTF-8
        load_bundle(tmp_path / 'own.zip')
        return
    with pytest.raises(BundleError, match=r'own.zip'):
        load_bundle(tmp_path / 'own.zip')


def test_arrays_of_gigabytes_that_hold_what_they_say_are_refused_unseen(own):
    """300 kB on disk, 300 MiB in memory: more than golden vectors of any size take."""
    bomb = ((300, 1 << 20), '|u1', (bytes(1 << 20) for _ in range(300)))
    bundle, head = with_arrays(own, **golden_arrays(image=bomb))
    assert (own / 'golden.npz').stat().st_size < 1 << 20

    with peak_mib() as used, pytest.raises(BundleError, match=r'MiB'):
        read_golden(bundle, head)
    assert used() < 64


def external(own, location, holder, **entries):
    """Let a tensor of head.onnx lie in a file beside it; checksums fit."""
    model = onnx.load(str(own / 'head.onnx'))
    tensor = TensorProto(name='weight', data_type=TensorProto.FLOAT, dims=[8])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {'location': location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    node = helper.make_node('Constant', [], ['hidden'], value=tensor)
    if holder == 'initializer':
        model.graph.initializer.append(tensor)
    elif holder == 'constant':
        model.graph.node.append(node)
    elif holder == 'sparse':
        model.graph.sparse_initializer.add().values.CopyFrom(tensor)
    elif holder == 'inner graph':
        inner = helper.make_graph([node], 'inner', [], [])
        model.graph.node.append(helper.make_node('If', ['x'], [], then_branch=inner))
    else:
        model.functions.add(name='f', domain='d').node.append(node)
    (own / 'head.onnx').write_bytes(model.SerializeToString())
    write_manifest(own, manifest_of(own))


HOLDERS = ['initializer', 'constant', 'sparse', 'inner graph', 'function']


@pytest.mark.parametrize('holder', HOLDERS)
@pytest.mark.parametrize(
    'location', ['extra.data', '../extra.data', '/etc/passwd', './golden.npz', 'golden.npz', '']
)
def test_a_tensor_in_a_file_that_is_not_its_stages_own_is_refused(own, holder, location):
    external(own, location, holder)
    (own / 'extra.data').write_bytes(bytes(32))

    with pytest.raises(BundleError, match=r"head.onnx: tensor 'weight' lies in"):
        load_bundle(own)


@pytest.mark.parametrize(
    ('entries', 'fits'),
    [
        ({'offset': 0, 'length': 32}, True),
        ({}, True),
        ({'offset': 4}, False),  # as long as its shape, where it does not say
        ({'offset': 16, 'length': 32}, False),
        ({'offset': -1}, False),
        ({'offset': 1 << 62, 'length': 32}, False),
        ({'offset': '1' * 30}, False),
        ({'length': '3.2e1'}, False),
    ],
)
def test_a_tensor_stays_inside_its_stages_file(own, entries, fits):
    external(own, 'head.data', 'initializer', **entries)
    (own / 'head.data').write_bytes(bytes(32))
    values = manifest_of(own)
    values['stages'][1]['external_data'] = 'head.data'
    write_manifest(own, values)

    if fits:
        assert load_bundle(own).missing_weights == ()
    else:
        with pytest.raises(BundleError, match=r"tensor 'weight' lies at"):
            load_bundle(own)


@pytest.mark.parametrize('second', ['float_data', 'int64_data', 'external_data'])
def test_a_tensor_with_values_in_two_places_is_refused(own, second):
    model = onnx.load(str(own / 'head.onnx'))
    tensor = model.graph.initializer[0]
    assert tensor.raw_data
    if second == 'external_data':
        tensor.external_data.add(key='location', value='head.data')
    else:
        getattr(tensor, second).extend([1, 1, 1])
    (own / 'head.onnx').write_bytes(model.SerializeToString())
    write_manifest(own, manifest_of(own))

    with pytest.raises(BundleError, match=r'has its values in 2 places'):
        load_bundle(own)


def test_a_graph_that_is_none_is_one_error(own):
    (own / 'head.onnx').write_bytes(b'\xff' * 100)
    write_manifest(own, manifest_of(own))

    with pytest.raises(BundleError, match=r'head.onnx is no ONNX graph'):
        load_bundle(own)


def test_a_bundle_of_terabytes_is_refused_before_it_is_read(own):
    """A sparse file takes no room on the disk and hours to hash."""
    with (own / 'large').open('wb') as file:
        file.truncate(1 << 42)
    values = manifest_of(own)
    values['files']['large'] = {'sha256': '0' * 64, 'size': 1 << 42}
    (own / 'manifest.json').write_text(json.dumps(values))

    with pytest.raises(BundleError, match=r'files of \d+ bytes.*refused'):
        load_bundle(own)


def test_a_zip_behind_a_sparse_beginning_is_refused_before_it_is_read(own, tmp_path):
    content = zipped(own, tmp_path / 'own.zip').read_bytes()
    with (tmp_path / 'own.zip').open('wb') as file:
        file.seek(1 << 36)
        file.write(content)

    with pytest.raises(BundleError, match='has more than'):
        load_bundle(tmp_path / 'own.zip')


def test_a_graph_that_fills_the_memory_is_refused_before_it_is_read(own):
    with (own / 'head.onnx').open('ab') as file:
        file.truncate(3 << 30)
    values = manifest_of(own)
    values['files']['head.onnx']['size'] = 3 << 30
    (own / 'manifest.json').write_text(json.dumps(values))

    with peak_mib() as peak, pytest.raises(BundleError, match=f'a graph of {3 << 30}'):
        load_bundle(own)
    assert peak() < 64


def changed(own, change):
    """Return the bundle loaded with another manifest."""
    values = manifest_of(own)
    change(values)
    write_manifest(own, values)
    return load_bundle(own)


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        (lambda m: m['classes'].append(m['classes'][0]), 'a name of its own'),
        (lambda m: m.update(heads=m['heads'] * 2), 'a name of its own'),
        (lambda m: m.update(stages=m['stages'] * 1000), 'a name of its own'),
        (
            lambda m: m['classes'].extend({**m['classes'][0], 'name': str(i)} for i in range(999)),
            'at most 256',
        ),
        (lambda m: m['classes'][0].update(color=[300, 0, 0]), 'from 0 to 255'),
        (lambda m: m['classes'][0].update(color=[0, -1, 0]), 'from 0 to 255'),
        (lambda m: m['input'].update(policy='other'), "policy 'other'"),
        (lambda m: m['input'].update(anchor=1e308), 'anchor 1e\\+308'),
        (lambda m: m['input'].update(anchor=-0.1), 'anchor -0.1'),
    ],
)
def test_what_no_frame_could_use_is_refused_at_once(own, change, said):
    with pytest.raises(BundleError, match=said):
        changed(own, change)


U8, F32 = np.uint8, np.float32
IMAGES, SCORES = np.zeros((2, 56, 84, 3), U8), np.zeros((2, 8, 12), F32)


@pytest.mark.parametrize(
    'arrays',
    [
        {'image': IMAGES[:0], 'surprisal': SCORES[:0], 'labels': SCORES[:0].astype(U8)},
        {'image': IMAGES[:1]},
        {'image': IMAGES[:, :7]},
        {'image': IMAGES.astype(F32)},
        {'image': np.repeat(IMAGES, 9, 0), 'surprisal': np.repeat(SCORES, 9, 0)},
        {'surprisal': SCORES.astype(np.float64)},
        {'surprisal': SCORES[0]},
        {'surprisal': SCORES * np.nan},
        {'labels': np.zeros(7, U8)},
        {'labels': SCORES.astype(np.int64)},
        {'in_distribution': np.full(3, np.nan, F32)},
        {'in_distribution': np.ones(2, F32)},
        {'in_distribution': np.array(['1', '0', '1'])},
    ],
)
def test_golden_vectors_of_other_shapes_are_refused(own, arrays):
    with np.load(own / 'golden.npz') as kept:
        np.savez(own / 'golden.npz', **{**dict(kept), **arrays})
    write_manifest(own, manifest_of(own))
    bundle = load_bundle(own)

    with pytest.raises(BundleError, match='pack it again'):
        read_golden(bundle, bundle.manifest.heads[0])
