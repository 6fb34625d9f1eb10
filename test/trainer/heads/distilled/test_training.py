# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The teacher's score against a closed form, the losses by hand, sources evened."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='the trainer needs torch')

from trainer.artifacts import load_values, save_values  # noqa: E402
from trainer.augment.pasting import OUTLIER  # noqa: E402
from trainer.data.images import IGNORED, ClassMap, ImageList  # noqa: E402
from trainer.heads.baselines.model import Mahalanobis  # noqa: E402
from trainer.heads.baselines.training import fit_mahalanobis  # noqa: E402
from trainer.heads.distilled.config import DistilledConfig  # noqa: E402
from trainer.heads.distilled.fit import evened  # noqa: E402
from trainer.heads.distilled.model import DistanceScore, StudentDecoder  # noqa: E402
from trainer.heads.distilled.teacher import Teacher, fit_distance  # noqa: E402
from trainer.heads.distilled.training import (  # noqa: E402
    MOST_GRADIENT,
    DistillationRun,
    class_loss,
    elsewhere_loss,
    in_other_light,
    object_loss,
    score_loss,
)


@pytest.fixture
def teacher():
    whitening = np.diag([1.0, 0.5]).astype(np.float32)
    mean, deviation = np.float32([1, 2]), np.float32([1, 2])
    return Teacher(mean, deviation, whitening, 0.0, 2.0)


def test_the_score_is_the_log_of_the_distance_in_deviations(teacher, tmp_path):
    tokens = np.float32([[2, 2], [1, 2 + 2 * np.e]])
    np.testing.assert_allclose(teacher.scores(tokens), [0.0, 1.0], atol=1e-6)
    np.testing.assert_allclose(teacher.standardised(tokens, 1.5), [[1, 0], [0, 1.5]])
    save_values(tmp_path / 'teacher.npz', teacher)
    again = load_values(tmp_path / 'teacher.npz', Teacher)
    np.testing.assert_array_equal(again.scores(tokens), teacher.scores(tokens))


def test_a_teacher_of_some_directions_ranks_as_the_baseline_of_as_many():
    rng = np.random.default_rng(2)
    tokens = (rng.normal(size=(500, 6)) @ rng.normal(size=(6, 6)) + 1).astype(np.float32)
    teacher = fit_distance(tokens, np.ones(500), 0.1, True, rank=4)
    served = Mahalanobis(fit_mahalanobis([tokens], 0.1, standardise=True), 1, rank=4)
    seen = torch.from_numpy(rng.normal(0, 3, (1, 5, 7, 6)).astype(np.float32))
    expected = np.log(served(seen, seen)[0].numpy())
    found = teacher.scores(seen[0].numpy())
    np.testing.assert_allclose(found * teacher.scale + teacher.center, expected, rtol=1e-4)


def test_the_students_own_distance_is_the_same_in_the_graph():
    tokens = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32) * (1, 2, 3)
    fit = fit_distance(tokens.astype(np.float32), np.ones(500), 0.05, True)
    scores = fit.scores(tokens)
    assert abs(scores.mean()) < 1e-3
    assert scores.std() == pytest.approx(1, abs=1e-3)
    assert fit.scores(np.float32([[9, 0, 0]])) > scores.max()
    graph = DistanceScore(fit)(torch.from_numpy(tokens).float())
    np.testing.assert_allclose(graph, scores, atol=1e-4)


def test_a_score_on_a_finer_grid_is_averaged_to_the_teachers():
    fine = torch.tensor([[[0.0, 2.0], [2.0, 4.0]]])
    assert score_loss(fine, torch.tensor([[[2.0]]])) == 0
    assert score_loss(fine, torch.tensor([[[5.0]]])) == pytest.approx(3 - 0.25)


def test_objects_and_classes_count_where_they_are_known():
    labels = torch.tensor([[OUTLIER, OUTLIER, IGNORED, 0]])
    score = torch.tensor([[1.0, 9.0, 0.0, 0.0]])
    assert object_loss(score, labels, 4.0) == pytest.approx((4 - 1) ** 2 / 2)
    logits = torch.tensor([[[9.0, -9.0]] * 3 + [[0.0, 0.0]]])
    assert class_loss(logits, labels) == pytest.approx(np.log(2))
    nothing = torch.full_like(labels, IGNORED)
    assert object_loss(score, nothing, 4.0) == class_loss(logits, nothing) == 0


def test_what_the_teacher_finds_far_is_no_normal_class_where_nothing_is_labelled():
    labels = torch.tensor([[[IGNORED, IGNORED], [0, OUTLIER]], [[IGNORED] * 2] * 2])
    logits = torch.zeros(2, 2, 2, 3)
    logits[0, 0, 0, 0] = 50.0
    far = torch.tensor([[[True]], [[False]]])
    # two cells count: certain of the normal class, and undecided among three
    expected = (50.0 - np.log(2) + np.log(3 / 2)) / 2
    assert elsewhere_loss(logits, labels, far, [0]) == pytest.approx(expected, rel=1e-5)
    assert elsewhere_loss(logits, labels, ~far[:1].expand(2, 1, 1), [0]) == 0
    assert elsewhere_loss(logits, labels, far, [0, 1, 2]) == 0


def test_a_step_without_a_finite_gradient_changes_no_weight():
    run = DistillationRun.__new__(DistillationRun)
    run.trained, run.step = torch.nn.Linear(1, 1), 0
    run.optimizer = torch.optim.SGD(run.trained.parameters(), 1.0)
    weight = run.trained.weight

    def moved(factor):
        run.loss = lambda *_: (weight * factor).sum()
        run.optimizer.zero_grad()
        before = weight.detach().clone()
        run._descend([0], 0, 0)
        run.optimizer.step()
        return abs(float((weight - before).detach()))

    assert moved(float('inf')) == moved(float('nan')) == 0
    assert moved(1.0) == pytest.approx(1.0)
    assert moved(1e6) == pytest.approx(MOST_GRADIENT, rel=1e-3)


def averaged_run():
    """Return a run whose every step adds 1 to its only weight."""
    run = DistillationRun.__new__(DistillationRun)
    run.trained, run.step, run.images, run.best = torch.nn.Linear(1, 1, bias=False), 0, 1, {}
    run.history, run.optimizer = [], torch.optim.SGD(run.trained.parameters(), 1.0)
    run.schedule = run.config = DistilledConfig(
        steps=400, select_every=100, warmup=1, learning_rate=1.0, final_rate=1.0, ema_decay=0.9
    )
    torch.nn.init.zeros_(run.trained.weight)
    run.loss = lambda *_: -run.trained.weight.sum()
    return run


def test_what_serves_is_the_moving_average_of_the_weights():
    done = averaged_run().fit()
    # the mean of steps n, n - 1, ... with weights 0.1, 0.09, ... lags 0.9 / 0.1 steps behind
    assert float(done.model.weight.detach()) == pytest.approx(400 - 9)
    assert done.best_step == 400


def test_the_moving_average_goes_on_from_a_checkpoint():
    whole, first, second = averaged_run(), averaged_run(), averaged_run()
    for run, steps in ((whole, 50), (first, 20)):
        for _ in range(steps):
            run._advance()
    second.restore(first.state())
    for _ in range(30):
        second._advance()
    assert torch.equal(second.best['weight'], whole.best['weight'])
    assert second.step == 50


def test_the_context_learns_in_float32_whatever_the_rest_does():
    """In bfloat16 its gradient held what the memory held before: see StudentDecoder._context."""
    torch.manual_seed(0)
    decoder = StudentDecoder(('a', 'b'), (8, 16), 64, 2).to(memory_format=torch.channels_last)
    tokens = torch.randn(3, 38, 68, 8), torch.randn(3, 19, 34, 16)

    def gradient(bf16):
        decoder.zero_grad()
        with torch.autocast('cpu', torch.bfloat16, enabled=bf16):
            feature = decoder(*tokens)
        feature.float().square().mean().backward()
        return decoder.context[0].weight.grad.clone()

    exact = gradient(False)
    for _ in range(20):
        del_later = [torch.full((20_000,), float('nan')) for _ in range(20)]
        del del_later  # what the next gradient's memory holds
        assert (gradient(True) - exact).abs().max() < 0.1 * exact.abs().max()


def test_other_light_keeps_the_shape_and_depends_on_the_draw():
    image = np.full((8, 9, 3), 120, np.uint8)
    one, two = (in_other_light(image, np.random.default_rng(seed)) for seed in (1, 2))
    assert one.shape == image.shape
    assert one.dtype == np.uint8
    assert (one != two).any()


def test_no_source_is_rare():
    sequences = (*['a/1'] * 8, 'b/1', 'b/2', 'c/1')
    names = tuple(f'n{i}' for i in range(len(sequences)))
    paths = tuple(Path(name) for name in names)
    classes = ClassMap(('x',), ((0, 0, 0),), {0: 0})
    found = [s[0] for s in evened(ImageList(names, paths, paths, sequences, classes)).sequences]
    assert [found.count(name) for name in 'abc'] == [8, 4, 4]
