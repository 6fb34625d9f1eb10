# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The head's benchmark and the torch process that bundles are compared with, on tiny sizes."""

import pytest

torch = pytest.importorskip('torch')
pytest.importorskip('transformers')
pytest.importorskip('openvino')
pytest.importorskip('onnxruntime')

from bench_models import random_pixood  # noqa: E402

from ood_perception.bench.program import trainer_module  # noqa: E402
from ood_perception.bench.protocol import Worker, take_turns  # noqa: E402
from ood_perception.errors import ConfigError  # noqa: E402
from trainer.bench_reference import named_backbone, openvino_run  # noqa: E402
from trainer.export.onnx import head_to_onnx  # noqa: E402
from trainer.heads.pixood.model import PixOODHead  # noqa: E402
from trainer.heads.upsampling import naive_squared_distances  # noqa: E402


class NaiveHead(PixOODHead):
    """The head with distances the paper's way: features are upsampled, then compared."""

    def __init__(self, model, factor):
        super().__init__(model, factor)
        self.etalons = [torch.as_tensor(model.etalons[name]) for name in self.compiled_classes]

    def nearest(self, tokens):
        squares = naive_squared_distances(tokens, self.etalons, self.upsampling)
        return [torch.sqrt(square) for square in squares]


def test_the_naive_head_of_the_benchmark_is_the_head():
    """The two forms that are timed against each other give the same surprisal."""
    model = random_pixood([9, 4], 16, ('tokens_0', 'tokens_1'))
    tokens = [torch.randn(1, 4, 5, 16) for _ in range(2)]
    chosen = torch.ones(2)

    ours, labels = PixOODHead(model, 7)(*tokens, chosen)
    naive, same = NaiveHead(model, 7)(*tokens, chosen)

    assert ours.shape == (1, 28, 35)
    torch.testing.assert_close(ours, naive, rtol=1e-4, atol=1e-3)
    assert torch.equal(labels, same)


def test_the_served_head_keeps_parity_with_the_naive_one():
    """The design's bound at published sizes: |d surprisal| <= 0.01 to 6, |d score| <= 1e-4."""
    torch.manual_seed(0)  # of the classifier's weights
    model = random_pixood([1000, 700], 384, ('tokens_0', 'tokens_1'))
    generator = torch.Generator().manual_seed(3)
    centres = torch.from_numpy(model.etalons['class_0'])[: 5 * 7].reshape(1, 5, 7, 384)
    noise = torch.randn(centres.shape, generator=generator)
    tokens = [torch.randn(centres.shape, generator=generator), centres + 0.5 * noise]
    chosen = torch.ones(2)
    naive = NaiveHead(model, 7)(*tokens, chosen)[0].numpy()

    graph = head_to_onnx(PixOODHead(model, 7), tokens).SerializeToString()
    served = openvino_run(graph, [*(one.numpy() for one in tokens), chosen.numpy()])()

    ranked = naive <= 6
    assert ranked.mean() > 0.5
    assert naive[ranked].std() > 0.1
    assert abs(served - naive)[ranked].max() <= 0.01
    assert abs(10.0**-served - 10.0**-naive).max() <= 1e-4


def test_the_torch_process_times_backbone_and_naive_distances():
    task = {
        'backbone': 'dinov2-s14', 'layers': [11, 2], 'height': 28, 'width': 42, 'upsampling': 2,
        'etalons': [5, 3], 'threads': 1, 'batch': 2,
    }  # fmt: skip
    with Worker('torch', trainer_module(), task, slow=True) as worker:
        assert worker.ready()['etalons'] == [5, 3]
        take_turns([worker], runs=2, warmup=1)
        assert worker.error == ''
        assert {name: len(ms) for name, ms in worker.times().items()} == {
            'torch_backbone': 2, 'naive_distances': 2,
        }  # fmt: skip


def test_a_backbone_that_has_no_sizes_is_refused():
    with pytest.raises(ConfigError, match='dinov2-s14'):
        named_backbone('resnet50')
    assert named_backbone('dinov2-reg-s14').architecture.registers == 4
