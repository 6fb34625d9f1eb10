# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Artifacts: a key is an address, made whole or not at all; runs in one store share, and go on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='the trainer needs torch')
pytest.importorskip('transformers')

from miniature_recipes import miniature  # noqa: E402
from stores import kept, only  # noqa: E402
from uem_recipes import places  # noqa: E402

from ood_perception.errors import ConfigError  # noqa: E402
from trainer.artifacts import Artifact, digest, write_npz  # noqa: E402
from trainer.augment.cutouts import Cutout  # noqa: E402
from trainer.augment.mixes import draw_mixes  # noqa: E402
from trainer.augment.on_the_fly import Crops  # noqa: E402
from trainer.augment.pasting import MixSettings  # noqa: E402
from trainer.augment.views import ViewSettings  # noqa: E402
from trainer.data.images import content_sha256  # noqa: E402
from trainer.datasets import load_images  # noqa: E402
from trainer.features import View  # noqa: E402
from trainer.heads.pixood import fit as pixood_stages  # noqa: E402
from trainer.recipe import load_recipe  # noqa: E402
from trainer.training import patch_classifier as classifier_training  # noqa: E402
from trainer.workflow import Workflow  # noqa: E402

__all__ = ['miniature', 'places']


def filled(text, made):
    def fill(folder):
        made.append(text)
        (folder / 'weights').write_text(text)

    return fill


def test_an_artifact_is_made_once_and_another_key_is_another_folder(tmp_path):
    made = []
    one, other = (Artifact(tmp_path, 'fit', digest([seed])) for seed in (1, 2))
    assert one.make(filled('one', made)).folder == tmp_path / f'fit-{one.key[:16]}'
    one.make(filled('again', made))
    other.make(filled('other', made))
    assert made == ['one', 'other']
    assert (one.folder / 'weights').read_text() == 'one'
    assert kept(tmp_path, 'fit') == {one.folder, other.folder}


def test_the_same_first_digits_are_not_the_same_key(tmp_path):
    made = []
    one, twin = (Artifact(tmp_path, 'fit', 'f' * 16 + end) for end in 'ab')
    for artifact, text in ((one, 'one'), (twin, 'twin'), (twin, 'again')):
        artifact.make(filled(text, made))
    assert made == ['one', 'twin']
    assert (one.folder / 'weights').read_text() == 'twin'


def test_a_failure_leaves_nothing_but_its_checkpoint_which_success_removes(tmp_path):
    artifact = Artifact(tmp_path, 'fit', digest('x'))

    def dying(folder):
        (folder / 'half').touch()
        artifact.checkpoint.touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        artifact.make(dying)
    assert not artifact.folder.exists()
    assert [path.name for path in tmp_path.iterdir() if not path.name.endswith('.lock')] == [
        artifact.checkpoint.name
    ]
    artifact.make(filled('whole', []))
    assert not artifact.checkpoint.exists()


def test_arrays_are_written_to_the_same_bytes(tmp_path):
    for name in 'ab':
        write_npz(
            tmp_path / name, {'x': np.arange(6).reshape(2, 3)[:, ::-1], 'text': np.array('y')}
        )
    assert (tmp_path / 'a').read_bytes() == (tmp_path / 'b').read_bytes()
    with np.load(tmp_path / 'a') as arrays:
        np.testing.assert_array_equal(arrays['x'], [[2, 1, 0], [5, 4, 3]])
        assert arrays['text'].item() == 'y'


def workflow(root, store, *changes):
    recipe = load_recipe(root / 'recipe.yaml', changes)
    return Workflow(recipe, store / 'run', store=store, cache=root / 'cache')


def test_an_interrupted_fit_goes_on_where_it_stood(miniature, tmp_path, monkeypatch):
    whole = workflow(miniature, tmp_path / 'whole').fit()
    epochs = []
    measure = classifier_training.evaluate_classifier

    def dying(*arguments):
        epochs.append(len(epochs))
        if len(epochs) == 3:
            raise KeyboardInterrupt
        return measure(*arguments)

    monkeypatch.setattr(classifier_training, 'evaluate_classifier', dying)
    with pytest.raises(KeyboardInterrupt):
        workflow(miniature, tmp_path / 'broken').fit()
    (checkpoint,) = (tmp_path / 'broken').glob('classifier-*.ckpt')
    again = workflow(miniature, tmp_path / 'broken').fit()
    assert len(epochs) == 3 + 2  # epochs 2 and 3 of 4; the first two are in the checkpoint
    assert not checkpoint.exists()
    assert again.key == whole.key
    for name in ('pixood.safetensors', 'pixood.json'):
        assert (again.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_runs_in_one_store_make_what_they_agree_on_once(miniature, tmp_path, monkeypatch):
    trained = []
    run = pixood_stages.ClassifierRun
    monkeypatch.setattr(
        pixood_stages, 'ClassifierRun', lambda *a, **k: (trained.append(a), run(*a, **k))[1]
    )
    keys = {}
    for name, changes in {
        'pixood': (),
        'words': ('data.description=Other words.', 'data.licence=none'),
        'knn': ('head.kind=knn', 'knn.feature=keys_2'),
        'energy': ('head.kind=baseline', 'head.score=energy'),
        'served': ('head.upsampling=3',),
        'calibrated': ('data.calibration=[train]',),
        'etalons': ('condensation.etalons=2',),
    }.items():
        keys[name] = workflow(miniature, tmp_path, *changes).calibrate().key
    assert len(trained) == len(kept(tmp_path, 'classifier')) == 1
    assert len(kept(tmp_path, 'fit-pixood')) == 2  # of two condensations
    assert keys['words'] == keys['pixood']
    assert len({*keys.values()}) == len(keys) - 1
    workflow(miniature, tmp_path, 'seed=4').calibrate()
    assert len(trained) == 2


@pytest.mark.parametrize('change', ['backbone.mean=[0.4, 0.4, 0.4]', 'seed=9'])
def test_a_tuned_backbone_depends_on_how_images_are_normalised(miniature, tmp_path, change):
    changes = ('finetuning.epochs=1', 'finetuning.pixel_step=4')
    one = workflow(miniature, tmp_path, *changes).finetune()
    assert workflow(miniature, tmp_path, *changes, change).finetune().key != one.key
    with pytest.raises(ConfigError, match=r'finetuning\.epochs is 0'):
        workflow(miniature, tmp_path).finetune()


def test_members_of_a_fusion_share_a_tuned_backbone(miniature, tmp_path):
    members = 'fusion.members=[{kind: pixood, layers: [2]}, {kind: knn}]'
    changes = ('head.kind=fusion', members, 'knn.feature=keys_2', 'finetuning.epochs=1')
    fit = workflow(miniature, tmp_path, *changes).head_fit
    tuned = fit.data.backbone
    assert only(tmp_path, 'finetune')
    assert [member.data.backbone for member in fit.members.values()] == [tuned, tuned]
    assert fit.members['pixood'].layers == (2,)
    assert fit.members['knn'].layers == (1, 2, 'keys_2')


def test_a_fusion_refuses_a_member_that_tunes_the_backbone(places, tmp_path):
    path = places / 'fusion.yaml'
    (source,) = places.glob('*.safetensors')
    path.write_text(
        f'name: x\ndata: {{layout: folders, root: {places / "data"}}}\n'
        f'backbone: {{weights: {source}, layers: [0, 1, 2, 3]}}\n'
        'bundle: {in_distribution: [left], ground_classes: [left], ship_weights: true}\n'
        'head: {kind: fusion}\nnflowjs: {backbone_rate: 0.001}\n'
        'fusion: {members: [{kind: uem}, {kind: nflowjs}]}\n'
    )
    flow = Workflow(load_recipe(path), tmp_path)
    with pytest.raises(ConfigError, match=r"\['nflowjs'\] tune the backbone"):
        flow.fit()


def test_what_objects_stand_on_is_part_of_a_mix(miniature):
    images = load_images('folders', miniature / 'data', 'train')
    swapped = replace(images, classes=replace(images.classes, names=('right', 'left')))
    square = Cutout(np.full((8, 8, 4), 255, np.uint8), 'image', 'thing')
    for settings, alike in ((MixSettings(), True), (MixSettings(stand_on=('left',)), False)):
        mixes = [
            draw_mixes(p, [square], settings, ViewSettings(), (56, 56)) for p in (images, swapped)
        ]
        assert (content_sha256(mixes[0]) == content_sha256(mixes[1])) is alike


def test_crops_do_not_depend_on_the_backbone_s_arithmetic(miniature):
    images = load_images('folders', miniature / 'data', 'train')
    keys = [
        Crops(images, (16, 16), View(*size, precision=precision), ViewSettings()).key
        for size, precision in (((56, 56), 'f32'), ((56, 56), 'bf16'), ((28, 28), 'f32'))
    ]
    assert keys[0] == keys[1] != keys[2]
