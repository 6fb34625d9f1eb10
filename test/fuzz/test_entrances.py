# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Every entrance for bytes of others takes any bytes: a result, or one of the package's own errors.

`make fuzz` runs it longer (FUZZ_EXAMPLES inputs an entrance). Each input is a whole one with a few
bytes changed, cut or doubled, or no such thing at all; an input that failed is tried first again
from .hypothesis/examples, and the ones that found something stand in @example.
"""

import io
import json
import shutil
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from bundles import write_tiny_bundle
from class_pixels import CLASSES, pixels
from fuzzing import changed, fuzzed, hypothesis, own_error_or_none, seldom, st, texts
from PIL import Image

from ood_perception.bundle.archives import read_arrays
from ood_perception.bundle.external_data import external_tensors
from ood_perception.bundle.graph_rules import check_graphs
from ood_perception.bundle.manifest_json import parse_manifest
from ood_perception.bundle.signatures import check_signature, read_public_key
from ood_perception.bundle.store import load_bundle
from ood_perception.bundle.weights.completion import read_map
from ood_perception.image.image_files import decode_image, decode_label
from ood_perception.json_files import parse_json
from ood_perception.parameters.files import read_parameters
from ood_perception.postprocess.calibration import HeldOutSample, arrays_of, sample_of
from ood_perception.postprocess.roi_files import parse_polygons
from ood_perception.ranging.calibration_file import read_calibration
from ood_perception.ranging.viewpoints import parse_poses


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


@seldom
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


KEY = 'RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3'


@fuzzed
@hypothesis.given(text=texts(KEY))
def test_keys(text):
    pytest.importorskip('minisign', reason='needs py-minisign (extra sign)')
    own_error_or_none(lambda: read_public_key(text))


SIGNATURE = b"""untrusted comment: signature from minisign secret key
RUQf6LRCGA9i559r3g7V1qNyJDApGip8MfqcadIgT9CuhV3EMhHoN1mGTkUidF/z7SrlQgXdy8ofjb7bNJJylDOocrCo8KLzZwo=
trusted comment: timestamp:1633700835
wLMDjy9FLAuxZ3q4NlEvkgtyhrr0gtTu6KC4KBJdITbbOeAi1zBIYo0v4iTgt8jJpIidRJnp94ABQkJAgAooBQ==
"""


@fuzzed
@hypothesis.given(data=st.data())
def test_signatures(place, data):
    pytest.importorskip('minisign', reason='needs py-minisign (extra sign)')
    (place / 'manifest.json.minisig').write_bytes(data.draw(changed(SIGNATURE)))
    own_error_or_none(lambda: check_signature(place, b'test', [KEY]))


@cache
def sample():
    surprisal, truth = pixels(40)
    return arrays_of(HeldOutSample(CLASSES, surprisal, truth, np.ones(40)))


@fuzzed
@hypothesis.given(data=st.data(), rate=st.floats(1e-3, 0.5))
def test_held_out_samples(data, rate):
    """Arrays of the right form with other bytes: refused, or a curve without NaN."""
    arrays = dict(sample())
    for name in data.draw(st.lists(st.sampled_from(sorted(arrays)), min_size=1, max_size=2)):
        values = arrays[name]
        content = data.draw(changed(values.tobytes()))
        content = content[: len(content) // values.itemsize * values.itemsize]
        flat = np.frombuffer(content, values.dtype)
        fits = flat.size == values.size and data.draw(st.booleans())
        arrays[name] = flat.reshape(values.shape) if fits else flat

    def use():
        found = sample_of(arrays)
        curve = found.calibration(found.classes)
        assert np.isfinite(curve(np.array([0.0, 0.5, 3.0, 40.0], np.float32))).all()

    with np.errstate(all='ignore'):
        own_error_or_none(use, ValueError, UnicodeError)


CAMERA = b"""image_width: 640
image_height: 480
distortion_model: plumb_bob
camera_matrix: {rows: 3, cols: 3, data: [500.0, 0, 320, 0, 500, 240, 0, 0, 1]}
distortion_coefficients: {rows: 1, cols: 5, data: [0.1, -0.2, 0, 0, 0]}
"""


@fuzzed
@hypothesis.given(data=st.data())
def test_camera_calibrations(place, data):
    (place / 'c.yaml').write_bytes(data.draw(changed(CAMERA)))
    own_error_or_none(lambda: read_calibration(place / 'c.yaml'))
