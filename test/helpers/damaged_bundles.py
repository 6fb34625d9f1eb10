# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Bundles that are damaged in one way."""

import json

import onnx
from bundles import write_manifest, write_tiny_bundle

from ood_perception.bundle.store import load_bundle


def damaged(tmp_path, change, **options):
    """Return a bundle whose stages were changed after the golden vectors were made."""
    path = write_tiny_bundle(tmp_path / 'damaged', **options)
    for name in ('backbone', 'head'):
        model = onnx.load(path / f'{name}.onnx')
        change(name, model)
        onnx.save(model, path / f'{name}.onnx')
    write_manifest(path, json.loads((path / 'manifest.json').read_text()))
    return load_bundle(path)


def swap_channels(name, model):
    for tensor in model.graph.initializer:
        if tensor.name == 'patch_embed.weight':
            values = onnx.numpy_helper.to_array(tensor)[:, ::-1]
            tensor.CopyFrom(onnx.numpy_helper.from_array(values.copy(), tensor.name))
