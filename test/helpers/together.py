# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Small trainings whose batches several processes share, and those processes."""

import multiprocessing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import torch
from feature_sets import make_feature_set
from limits import HANGS
from segmenter_features import LAYERS, SEGMENTER, feature_set

from trainer.heads.rpl.config import RplConfig
from trainer.heads.rpl.training import RplRun
from trainer.heads.uem.config import UemConfig
from trainer.heads.uem.training import UemRun, known_scores
from trainer.nets.gmm import GmmSettings
from trainer.nets.patch_classifier import ClassifierConfig
from trainer.training.patch_classifier import ClassifierRun
from trainer.training.segmenter import SegmenterRun

GMM = GmmSettings(queue=60, every=3, momentum=0.9)
# three images: two and one, or one each and a process without any
SHORT = {'steps': 8, 'select_every': 4, 'batch': 3, 'matmul': 'f32'}


def classifier():
    sets = [make_feature_set(images=count, seed=count) for count in (6, 3)]
    config = ClassifierConfig(epochs=3, batch=3, matmul='f32')
    return ClassifierRun(*sets, ['tokens_5', 'tokens_11'], 3, config).fit()


def segmenter(**changes):
    known = feature_set(6, outliers=False)
    return SegmenterRun(known, known, LAYERS, 2, replace(SEGMENTER, **SHORT, **changes)).fit()


def uem(form):
    network = segmenter().model
    data = [(f, known_scores(network, f)) for f in (feature_set(6), feature_set(3, seed=5))]
    return UemRun(*data, LAYERS[-1], UemConfig(form=form, gmm=GMM, warmup=2, **SHORT)).fit()


def rpl():
    sets = feature_set(6), feature_set(4, seed=8)
    config = RplConfig(width=8, samples=16, **SHORT)
    return RplRun(segmenter().model, sets, feature_set(3, seed=5), config).fit()


TRAININGS = {
    'classifier': classifier,
    'linear segmenter': segmenter,
    'full decoder': lambda: segmenter(preset='full'),
    # of two classes the class norm makes a sign, and rounding may turn it
    'generative segmenter': lambda: segmenter(head='gmm', gmm=replace(GMM, class_norm=False)),
    'discriminative uem': lambda: uem('discriminative'),
    'generative uem': lambda: uem('generative'),
    'rpl': rpl,
}


def trained_by(count, folder):
    """Return what so many processes learn, by training and tensor, with the looks' figures."""
    folder = Path(folder) / f'by_{count}'
    folder.mkdir(parents=True)
    context = multiprocessing.get_context('spawn')
    workers = [context.Process(target=_work, args=(n, count, str(folder))) for n in range(count)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(HANGS)
    assert [worker.exitcode for worker in workers] == [0] * count
    return torch.load(folder / 'learned.pt')


def _work(rank, count, folder):
    torch.set_num_threads(1)
    if count > 1:
        torch.distributed.init_process_group(
            'gloo',
            init_method=f'file://{folder}/meet',
            rank=rank,
            world_size=count,
            timeout=timedelta(seconds=HANGS),
        )
    learned = {name: _state(train()) for name, train in TRAININGS.items()}
    if rank == 0:
        torch.save(learned, f'{folder}/learned.pt')
    if count > 1:
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def _state(training):
    history = torch.tensor(training.history, dtype=torch.float64)
    return {**training.model.state_dict(), 'history': history}
