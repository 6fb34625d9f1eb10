# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Condensation: schedule, support statistics, determinism, resuming, and what it is for."""

import numpy as np
import pytest

from ood_perception.errors import ConfigError, DataError

torch = pytest.importorskip('torch')
from feature_sets import make_feature_set  # noqa: E402

from trainer.artifacts import Artifact  # noqa: E402
from trainer.heads.pixood import condensation  # noqa: E402
from trainer.heads.pixood import etalons as etalon_bank  # noqa: E402
from trainer.heads.pixood.condensation import condense, starting_bank  # noqa: E402
from trainer.heads.pixood.config import METHODS, CondensationSettings  # noqa: E402
from trainer.nets.patches import ClassTokens, PatchSettings, gather_tokens, select_patches  # noqa: E402


def some_classes(images=24, **options):
    features = make_feature_set(images=images, **options)
    selection = select_patches(features, 'abc', PatchSettings(fewest_patches=1))
    return gather_tokens(features, 'tokens_11', selection)


def a_run(classes=None, **options):
    settings = CondensationSettings(**{'etalons': 6, 'epochs': 10} | options)
    return starting_bank(classes or some_classes(), settings)


def test_temperature_and_moves_follow_the_published_schedule():
    settings = CondensationSettings(epochs=100)

    assert settings.inverse_temperature(0) == 0.5
    assert settings.inverse_temperature(50) == pytest.approx(1.25)
    assert settings.inverse_temperature(100) == pytest.approx(2.0)
    assert [e for e in range(100) if settings.moves_etalons(e)] == list(range(1, 90))


def test_etalons_are_a_budget_capped_by_the_patches():
    settings = CondensationSettings(etalons=50)

    assert [settings.budget(n) for n in (0, 1, 200, 999, 1000, 10**6)] == [0, 1, 10, 49, 50, 50]


def test_a_rare_class_does_not_bring_all_patches_of_the_others_into_memory(monkeypatch):
    common, rare = (
        ClassTokens(np.zeros((40 * each, 4), np.float16), each * np.arange(41))
        for each in (100, 1)
    )
    run = a_run([common, rare])

    def taken(sample, most):
        monkeypatch.setattr(etalon_bank, '_SAMPLE', sample)
        monkeypatch.setattr(etalon_bank, '_MOST', most)
        return [len(patches) for patches in etalon_bank._initial_samples(run)]

    assert taken(sample=20, most=10**6) == [2100, 21]  # images until both have more than 20
    assert taken(sample=50, most=10**6) == [4000, 40]  # the rare one never has
    assert taken(sample=50, most=400) == [300, 40]  # three images are over half of 400
    assert taken(sample=20, most=2000) == [1100, 21]


def test_support_is_a_bias_corrected_average_at_a_rate_per_epoch():
    run = a_run()
    q = 0.744 / 6  # 24 images, 4 a batch
    batches = [torch.rand(6) for _ in range(5)]

    for batch in batches:
        run.count(1, batch, 7)

    weights = np.array([q * (1 - q) ** (4 - t) for t in range(5)])
    expected = sum(w * b.numpy() for w, b in zip(weights / weights.sum(), batches, strict=True))
    np.testing.assert_allclose(run.support[run.slices[1]].numpy(), expected, rtol=1e-5)
    assert float(run.batch_sizes[1]) == pytest.approx(7)
    assert (run.support[run.slices[0]] == 1).all()


def test_an_etalon_without_support_moves_to_a_patch_of_the_batch():
    run = a_run()
    part, threshold = run.slices[2], run.threshold(2)
    run.support[part] = 5.0
    run.support[part][3] = 0.5 * threshold
    before = run.etalons.clone()
    patches = torch.randn(9, run.etalons.shape[1])

    condensation._reinitialise(run, 2, patches, torch.Generator().manual_seed(0))

    moved = (run.etalons != before).any(1)
    assert moved.nonzero().flatten().tolist() == [part.start + 3]
    assert float((patches - run.etalons[part][3]).norm(dim=1).min()) < 1e-5
    assert float(run.support[part][3]) == pytest.approx(1.1 * threshold)
    assert bool(run.valid(2).all())


def test_scales_start_at_ten():
    np.testing.assert_allclose(a_run().scales().numpy(), 10.01, rtol=1e-5)


@pytest.mark.parametrize('method', METHODS)
def test_every_method_gives_etalons_near_the_patches(method):
    classes = some_classes(dim=4)

    got = condense(classes, CondensationSettings(method=method, etalons=8, epochs=30))

    for tokens, etalons, won in zip(classes, got.etalons, got.won, strict=True):
        values = tokens.tokens.astype(np.float32)
        nearest = np.linalg.norm(values[:, None] - etalons[None], axis=2).min(1)
        spread = np.linalg.norm(values - values.mean(0), axis=1).mean()
        assert 1 <= len(etalons) <= 8
        assert won.sum() == len(tokens)
        assert won.min() > 0
        assert nearest.mean() < (1.01 if method == 'single_mean' else 0.8) * spread


def test_the_single_mean_is_the_mean():
    classes = some_classes()
    got = condense(classes, CondensationSettings(method='single_mean'))

    for tokens, etalons in zip(classes, got.etalons, strict=True):
        mean = tokens.tokens.astype(np.float64).mean(0)
        np.testing.assert_allclose(etalons[0], mean, atol=1e-4)


def test_the_loss_falls_and_the_same_seed_gives_the_same_etalons():
    classes = some_classes()
    settings = CondensationSettings(etalons=8, epochs=20)

    first, second = condense(classes, settings), condense(classes, settings)
    other = condense(classes, CondensationSettings(etalons=8, epochs=20, seed=7))

    assert first.losses[-1] < first.losses[0]
    for a, b in zip(first.etalons, second.etalons, strict=True):
        np.testing.assert_array_equal(a, b)
    assert any(
        a.shape != b.shape or not np.array_equal(a, b)
        for a, b in zip(first.etalons, other.etalons, strict=True)
    )


def test_a_killed_run_goes_on_to_the_same_result(tmp_path, monkeypatch):
    classes, settings = some_classes(), CondensationSettings(etalons=8, epochs=12)
    expected = condense(classes, settings)
    epoch = condensation._epoch

    def killed(*arguments):
        if arguments[-1] == 9:
            raise KeyboardInterrupt
        return epoch(*arguments)

    monkeypatch.setattr(condensation, '_epoch', killed)
    options = {'artifact': Artifact(tmp_path, 'fit', 'key'), 'checkpoint_every': 5}
    with pytest.raises(KeyboardInterrupt):
        condense(classes, settings, **options)
    done = []
    monkeypatch.setattr(condensation, '_epoch', lambda *a: (done.append(a[-1]), epoch(*a))[1])
    got = condense(classes, settings, **options)

    assert done[0] == 5
    assert got.losses == expected.losses
    for a, b in zip(got.etalons, expected.etalons, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_checkpoint_of_other_features_is_left_alone(tmp_path):
    classes, settings = some_classes(), CondensationSettings(etalons=4, epochs=3)
    one, two = (Artifact(tmp_path, 'fit', '0' * 16 + name) for name in ('one', 'two'))
    condense(classes, settings, artifact=one)

    assert one.checkpoint == two.checkpoint
    got = condense(classes, settings, artifact=two)

    assert got.losses == condense(classes, settings).losses


def test_classes_without_patches_get_no_etalons():
    classes = list(some_classes())
    classes[1] = ClassTokens(classes[1].tokens[:0], np.zeros(25, np.int64))

    got = condense(classes, CondensationSettings(etalons=4, epochs=2))

    assert [len(e) > 0 for e in got.etalons] == [True, False, True]


def test_no_patch_at_all_is_a_clear_error():
    empty = ClassTokens(np.empty((0, 4), np.float16), np.zeros(3, np.int64))
    with pytest.raises(DataError, match=r'no class has a patch .* lower patches.fewest_images'):
        condense([empty], CondensationSettings())


@pytest.mark.parametrize(
    'wrong', [{'method': 'magic'}, {'matmul': 'int4'}, {'etalons': 0}, {'epochs': 0}]
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        CondensationSettings(**wrong)


def heavy_tails(seed=0, images=40):
    """One class in 2-D, 60 patches an image: dense in the middle, rare far out."""
    rng = np.random.default_rng(seed)
    tokens = rng.standard_t(2, (60 * images, 2)).clip(-30, 30).astype(np.float16)
    return [ClassTokens(tokens, np.arange(images + 1, dtype=np.int64) * 60)]


def useful(**options):
    """Return how many of 50 etalons are still in use at the end."""
    settings = CondensationSettings(etalons=50, patches_per_etalon=1, **options)
    return len(condense(heavy_tails(), settings).etalons[0])


def test_the_order_of_the_papers_toy_figure_holds():
    kmeans = useful(method='soft_kmeans', reinitialise=False)
    kmedians = useful(method='soft_kmedians', reinitialise=False)
    without = useful(reinitialise=False)
    full = useful()

    assert kmeans < kmedians < without < full
