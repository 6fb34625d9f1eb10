# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Every entrance for bytes of others takes any bytes: a result, or one of the package's own errors.

`make fuzz` runs it longer (FUZZ_EXAMPLES inputs an entrance). Each input is a whole one with a few
bytes changed, cut or doubled, or no such thing at all; an input that failed is tried first again
from .hypothesis/examples, and the ones that found something stand in @example.
"""

import contextlib
import io
import json
import os
import shutil
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from bundles import write_tiny_bundle
from PIL import Image

from ood_perception.bundle.archives import read_arrays
from ood_perception.bundle.external_data import external_tensors
from ood_perception.bundle.graph_rules import check_graphs
from ood_perception.bundle.manifest_json import parse_manifest
from ood_perception.bundle.signatures import read_public_key
from ood_perception.bundle.store import load_bundle
from ood_perception.bundle.weights.completion import read_map
from ood_perception.errors import OodPerceptionError
from ood_perception.image.image_files import decode_image, decode_label
from ood_perception.json_files import parse_json
from ood_perception.parameters.files import read_parameters
from ood_perception.postprocess.roi_files import parse_polygons
from ood_perception.ranging.viewpoints import parse_poses

hypothesis = pytest.importorskip('hypothesis', reason='needs hypothesis (extra test)')
st = hypothesis.strategies

EXAMPLES = int(os.environ.get('FUZZ_EXAMPLES', '60'))
fuzzed = hypothesis.settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize='FUZZ_EXAMPLES' not in os.environ,
    suppress_health_check=list(hypothesis.HealthCheck),
)


def changed(whole):
    """Return a strategy of bytes: parts of `whole` altered, cut, doubled, or anything."""
    end = len(whole)
    places = st.integers(0, end)

    def apply(edits):
        data = bytearray(whole)
        for place, length, new in edits:
            data[place : place + length] = new
        return bytes(data)

    edit = st.tuples(places, st.integers(0, 64), st.binary(max_size=64))
    edits = st.lists(edit, min_size=1, max_size=6).map(apply)
    return st.one_of(edits, places.map(lambda size: whole[:size]), st.binary(max_size=400))


def texts(whole):
    return changed(whole.encode()).map(lambda data: data.decode('utf-8', 'replace'))


def own_error_or_none(work, *others):
    """Run it; only the package's own errors, and `others` that it documents, may come out."""
    with contextlib.suppress(OodPerceptionError, *others):
        work()


@cache
def tiny():
    import tempfile

    return write_tiny_bundle(Path(tempfile.mkdtemp()) / 'tiny', external_weights=True)


@cache
def content(name):
    return (tiny() / name).read_bytes()


@cache
def zipped():
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w', zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(tiny().iterdir()):
            archive.write(path, path.name)
    return file.getvalue()


@cache
def image(form):
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv('OOD_PERCEPTION_CACHE', str(tmp_path / 'cache'))
    return tmp_path


@fuzzed
@hypothesis.given(data=st.data())
def test_json(data):
    own_error_or_none(lambda: parse_json(data.draw(changed(content('manifest.json')))), ValueError)


@fuzzed
@hypothesis.given(data=st.data())
def test_manifests(data):
    own_error_or_none(lambda: parse_manifest(data.draw(changed(content('manifest.json'))), 'm'))


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20),
    st.lists(st.integers(), max_size=3), st.dictionaries(st.text(max_size=5), st.integers()),
)  # fmt: skip


@fuzzed
@hypothesis.given(data=st.data())
def test_manifests_of_the_right_form_with_other_values(data):
    values = json.loads(content('manifest.json'))
    for _ in range(data.draw(st.integers(1, 4))):
        inner = values
        while isinstance(inner, (dict, list)) and inner:
            keys = sorted(inner) if isinstance(inner, dict) else range(len(inner))
            key = data.draw(st.sampled_from(list(keys)))
            if not isinstance(inner[key], (dict, list)) or data.draw(st.booleans()):
                inner[key] = data.draw(VALUES)
                break
            inner = inner[key]
    own_error_or_none(lambda: parse_manifest(json.dumps(values).encode(), 'm'))


@fuzzed
@hypothesis.given(data=st.data())
def test_weight_maps(place, data):
    (place / 'weights.map.json').write_bytes(data.draw(changed(content('weights.map.json'))))
    own_error_or_none(lambda: read_map(place / 'weights.map.json'))


@fuzzed
@hypothesis.given(data=st.data())
def test_zips(place, data):
    (place / 'b.zip').write_bytes(data.draw(changed(zipped())))
    own_error_or_none(lambda: load_bundle(place / 'b.zip'))


@fuzzed
@hypothesis.given(data=st.data())
def test_arrays(place, data):
    (place / 'golden.npz').write_bytes(data.draw(changed(content('golden.npz'))))
    own_error_or_none(lambda: read_arrays(place / 'golden.npz'), ValueError, OSError)


@fuzzed
@hypothesis.given(data=st.data())
def test_graphs(place, data):
    (place / 'head.onnx').write_bytes(data.draw(changed(content('head.onnx'))))
    own_error_or_none(lambda: list(external_tensors(place / 'head.onnx')))


@hypothesis.settings(fuzzed, max_examples=max(5, EXAMPLES // 4))
@hypothesis.given(data=st.data())
def test_the_rules_of_graphs(place, data):
    """The rules are held against what protobuf takes, in this process: nothing may crash it."""
    shutil.copytree(tiny(), place / 'b', dirs_exist_ok=True)
    (place / 'b' / 'head.onnx').write_bytes(data.draw(changed(content('head.onnx'))))
    bundle = load_bundle(place / 'b', verify=False)

    def check():
        for stage in bundle.manifest.stages:
            list(external_tensors(bundle.stage_path(stage)))
        check_graphs(bundle)

    own_error_or_none(check)


@fuzzed
@hypothesis.given(
    data=st.data(), form=st.sampled_from(['PNG', 'BMP', 'GIF', 'TIFF', 'WEBP', 'PPM'])
)
def test_images(data, form):
    own_error_or_none(lambda: decode_image(data.draw(changed(image(form))), 'image'))


@fuzzed
@hypothesis.given(data=st.data())
def test_jpegs(data):
    own_error_or_none(lambda: decode_image(data.draw(changed(image('JPEG'))), 'image'))


@fuzzed
@hypothesis.given(data=st.data(), form=st.sampled_from(['PNG', 'BMP', 'TIFF']))
def test_labels(data, form):
    own_error_or_none(lambda: decode_label(data.draw(changed(image(form))), 'label'))


PARAMETERS = """/**:
  ros__parameters: {false_alarm_rate: 0.01, roi: {mode: polygon, polygons: ['0,0 1,0 1,1']}}
"""


@fuzzed
@hypothesis.given(data=st.data())
def test_parameter_files(place, data):
    (place / 'p.yaml').write_bytes(data.draw(changed(PARAMETERS.encode())))
    own_error_or_none(lambda: read_parameters(place / 'p.yaml', lambda line: None))


@fuzzed
@hypothesis.given(text=texts('front: 0,0 1,0 1,1 0,1'))
def test_polygons(text):
    own_error_or_none(lambda: parse_polygons('roi.polygons', [text]))


@fuzzed
@hypothesis.given(text=texts('front: 0,0,1.2 0,0.1,0'))
def test_poses(text):
    own_error_or_none(lambda: parse_poses('camera.poses', [text]))


@fuzzed
@hypothesis.given(text=texts('RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3'))
def test_keys(text):
    pytest.importorskip('minisign', reason='needs py-minisign (extra sign)')
    own_error_or_none(lambda: read_public_key(text))
