# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Fresh views and mixes in every step (the `paper` preset): exact, repeatable, and they train."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='the trainer needs torch')
pytest.importorskip('transformers')

from paths import ROOT  # noqa: E402
from stores import report  # noqa: E402
from tiny_backbones import tiny_backbone  # noqa: E402
from uem_recipes import RECIPE, places, train  # noqa: E402

from ood_perception.errors import ConfigError  # noqa: E402
from trainer.artifacts import Artifact  # noqa: E402
from trainer.augment.cutouts import load_cutouts  # noqa: E402
from trainer.augment.mixes import AnomalyMix, grouped  # noqa: E402
from trainer.augment.on_the_fly import OnTheFlyFeatures, OnTheFlySettings, draw_crop  # noqa: E402
from trainer.augment.pasting import OUTLIER, MixSettings  # noqa: E402
from trainer.augment.views import ViewSettings  # noqa: E402
from trainer.data.images import IGNORED  # noqa: E402
from trainer.datasets import load_images  # noqa: E402
from trainer.features import View  # noqa: E402
from trainer.nets.segmenter import SegmenterConfig  # noqa: E402
from trainer.recipe import load_recipe  # noqa: E402
from trainer.training.segmenter import SegmenterRun  # noqa: E402
from trainer.workflow import Workflow  # noqa: E402

__all__ = ['places']
PLAIN = ViewSettings(brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0, flip=0.0)
CPU = OnTheFlySettings(crop=(50, 50), device='cpu')
PAPER = ROOT / 'config' / 'train' / 'uem_paper.yaml'
LAYERS = tuple(f'tokens_{block}' for block in range(4))


def crop_of(scale, crop, size=(60, 80), view=PLAIN, seed=0):
    """Draw from an image of 40 x 60 pixels whose colour says its label, 0 left and 1 right."""
    labels = np.zeros((40, 60), np.uint8)
    labels[:, 30:] = 1
    image = np.repeat(np.where(labels, 200, 50).astype(np.uint8)[..., None], 3, 2)
    rng = np.random.default_rng(seed)
    return draw_crop(image, labels, replace(view, scale=(scale, scale)), crop, size, rng)


def test_a_small_image_is_whole_and_the_rest_is_black_and_ignored():
    image, labels = crop_of(0.5, (60, 80))
    assert (labels[:20, :15] == 0).all()
    assert (labels[:20, 15:30] == 1).all()
    rest = np.ones(labels.shape, bool)
    rest[:20, :30] = False
    assert (labels[rest] == IGNORED).all()
    assert not image[rest].any()


@pytest.mark.parametrize('flip', [0.0, 1.0])
def test_a_large_image_is_cropped_and_labels_move_with_their_pixels(flip):
    image, labels = crop_of(2.0, (50, 70), view=replace(PLAIN, flip=flip), seed=3)
    assert (labels[:50, :70] != IGNORED).all()
    assert (labels[50:] == IGNORED).all()
    assert (labels[:, 70:] == IGNORED).all()
    assert set(np.unique(labels[:50, :70])) == {0, 1}
    assert labels[0, 0] == (1 if flip else 0)
    expected = np.where(labels[:50, :70], 200, 50)
    agree = np.abs(image[:50, :70, 0].astype(int) - expected) < 3
    assert agree.mean() > 0.95  # but for the blurred column between the classes


@pytest.fixture(scope='module')
def images(places):
    return load_images('folders', places / 'data', 'train')


def on_the_fly(images, mix=None, seed=1):
    views = ViewSettings(seed=seed)
    backbone = tiny_backbone(depth=4)
    return OnTheFlyFeatures(images, backbone, (0, 1, 2, 3), View(56, 56), views, CPU, mix)


def test_a_step_is_drawn_from_seed_and_step_alone(images):
    features = on_the_fly(images)
    first, again, later = (features.draw([0, 1], step) for step in (5, 5, 6))
    assert np.array_equal(first.tokens['tokens_3'], again.tokens['tokens_3'])
    assert np.array_equal(first.labels, again.labels)
    assert not np.array_equal(first.labels, later.labels)
    other = on_the_fly(images, seed=2)
    assert not np.array_equal(first.labels, other.draw([0, 1], 5).labels)
    assert features.key == on_the_fly(images).key != other.key


def test_objects_are_pasted_as_often_as_asked(places, images):
    groups = grouped(load_cutouts(places / 'outlier_objects', 'training'))
    mixed = on_the_fly(images, AnomalyMix(groups, MixSettings(probability=0.25)))
    drawn = [mixed.draw([0] * 20, step).labels for step in range(5)]
    share = np.mean([(one == OUTLIER).any() for labels in drawn for one in labels])
    assert 0.05 < share < 0.45  # four standard errors; a crop may miss the object
    assert not (on_the_fly(images).draw([0] * 20, 0).labels == OUTLIER).any()
    assert mixed.key != on_the_fly(images).key


class Dying:
    """Images that end the run, as a kill would, at the n-th read."""

    def __init__(self, images, reads):
        self.images, self.reads = images, reads

    def __getattr__(self, name):
        return getattr(self.images, name)

    def read(self, index):
        self.reads -= 1
        if self.reads < 0:
            raise KeyboardInterrupt
        return self.images.read(index)


def test_a_killed_run_goes_on_as_if_nothing_had_been(tmp_path, images):
    features = on_the_fly(images)
    select = features.draw(range(4), 1000)
    config = SegmenterConfig(width=8, steps=9, batch=2, warmup=2, select_every=3, on_the_fly=True)
    arguments = (select, LAYERS, len(images.classes.names), config)
    whole = SegmenterRun(features, *arguments).fit()
    artifact = Artifact(tmp_path, 'segmenter', 'key')
    dying = replace(features, images=Dying(images, 9))
    dying.__dict__['key'] = features.key
    with pytest.raises(KeyboardInterrupt):
        SegmenterRun(dying, *arguments).fit(artifact)
    again = SegmenterRun(features, *arguments).fit(artifact)
    assert again.history == whole.history
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name


@pytest.mark.parametrize('form', ['discriminative', 'generative'])
def test_the_paper_preset_trains_and_packs(places, form):
    """The published decoder, fresh crops and mixes in every step, down to a bundle."""
    shipped = load_recipe(PAPER)
    changes = [
        *('segmenter.on_the_fly=true', 'uem.on_the_fly=true'),
        *('on_the_fly.device=cpu', 'on_the_fly.crop=[50, 50]'),
        *(f'segmenter.preset={shipped.segmenter.preset}', 'segmenter.head=gmm'),
        *('segmenter.steps=4', 'segmenter.select_every=2', 'uem.steps=4', 'uem.select_every=2'),
        f'mixes.probability={shipped.mixes.probability}',
    ]
    options = [word for change in changes for word in ('--set', change)]
    bundle = train(places, form, f'paper-{form}', *options)
    assert bundle.manifest.provenance['recipe']['on_the_fly']['crop'] == [50, 50]
    for part in ('segmenter', 'fit-uem'):
        history = report(places / f'paper-{form}', part)['history']
        assert [look[0] for look in history] == [2, 4]


def test_without_a_held_out_part_other_splits_alone_calibrate(places, tmp_path):
    changes = [
        'data.calibration=[train]',
        'data.calibration_fraction=0',
        'segmenter.on_the_fly=true',
    ]
    recipe = load_recipe(places / 'discriminative.yaml', changes)
    flow = Workflow(recipe, tmp_path, cache=places / 'cache')
    assert flow.head_fit.calibration_features.names == flow.data.images.names


def test_the_shipped_paper_recipe_is_the_papers():
    recipe = load_recipe(PAPER)
    assert recipe.segmenter.on_the_fly
    assert recipe.uem.on_the_fly
    assert (recipe.segmenter.width, recipe.segmenter.steps) == (256, 90_000)
    assert (recipe.uem.steps, recipe.uem.warmup, recipe.mixes.probability) == (4000, 1500, 0.2)
    assert (recipe.data.calibration_fraction, recipe.data.calibration) == (0, ('val',))
    assert (recipe.view.height, recipe.view.width, recipe.on_the_fly.crop) == (
        518,
        1036,
        (512, 1024),
    )


def test_the_recipes_of_the_forms_differ_in_their_heads_alone():
    base = load_recipe(PAPER.with_name('uem_camvid.yaml'))
    for name, form in (('gd', 'discriminative'), ('gg', 'generative')):
        other = load_recipe(PAPER.with_name(f'uem_camvid_{name}.yaml'))
        changed = replace(other, name=base.name, segmenter=base.segmenter, uem=base.uem)
        assert changed == base
        assert other.segmenter == replace(base.segmenter, head='gmm')
        assert other.uem == replace(base.uem, form=form)


def test_an_impossible_device_is_refused():
    with pytest.raises(ConfigError, match=r"device 'tpu'.*auto, cpu, cuda"):
        OnTheFlySettings(device='tpu')


def test_images_of_one_moment_calibrate_once(places, tmp_path):
    changes = [
        'data.calibration=[train]',
        'data.calibration_fraction=0',
        'segmenter.on_the_fly=true',
    ]
    path = places / 'spaced.yaml'
    text = RECIPE.replace('WEIGHTS', str(places / 'tiny.safetensors'))
    path.write_text(text.replace('FORM', 'discriminative').replace('ROOT', str(places / 'data')))
    plain = load_recipe(path, changes)
    assert not {'calibration_spacing', 'calibration_blocks'} & set(plain.portable()['data'])
    recipe = load_recipe(path, [*changes, 'data.calibration_spacing=3'])
    assert recipe.sha256() != plain.sha256()
    spaced = Workflow(recipe, tmp_path, cache=places / 'cache')
    every = Workflow(plain, tmp_path, cache=places / 'cache')
    features, whole = (one.data.calibration_features() for one in (spaced, every))
    assert features.names == whole.names[::3]
    assert features.key != whole.key
    np.testing.assert_array_equal(features.tokens['tokens_3'][1], whole.tokens['tokens_3'][3])
