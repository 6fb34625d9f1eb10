# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""`trainer evaluate --ray`: workers make the records, the numbers are those of one process."""

from __future__ import annotations

import json

import pytest

pytest.importorskip('torch')
from evaluated_sets import BOX, SETS, anomaly_labels, write_images

from ood_perception.fleet import pool
from trainer.evaluation.evaluate import SOME_SKIPPED, main


def ledger(out):
    """Return the entries by the image's place."""
    found = [json.loads(path.read_text()) for path in out.glob('images/*/ledger/*.json')]
    return {entry['place']: entry for entry in found}


@pytest.fixture(params=['one worker, here', pytest.param('ray', marks=pytest.mark.slow)])
def workers(request, monkeypatch):
    if request.param == 'ray':
        pytest.importorskip('ray')
    else:
        monkeypatch.setattr(pool, '_on_ray', lambda crew, _, items, __: pool._here(crew, items))


@pytest.mark.usefixtures('workers')
def test_workers_give_the_bytes_of_one_process(tiny_bundle, tmp_path, capsys):
    root = tmp_path / 'sets'
    write_images(root / SETS[0], anomaly_labels, [BOX, None, BOX, BOX, None])
    broken = sorted((root / SETS[0] / 'images').iterdir())[1]
    broken.write_bytes(broken.read_bytes()[:100])
    words = [str(tiny_bundle), '--data', SETS[0], '--root', str(root), '--quiet']
    words += ['--precision', 'f32', '--threads', '1', '--on-error', 'skip', '--out']
    assert main([*words, str(tmp_path / 'one')]) == SOME_SKIPPED
    many = [*words, str(tmp_path / 'many'), '--ray', 'local', '--workers', '2']
    assert main(many) == SOME_SKIPPED
    one, two = ((tmp_path / name / 'results.json').read_bytes() for name in ('one', 'many'))
    assert one == two
    entries = ledger(tmp_path / 'many')
    assert sorted(entry['status'] for entry in entries.values()) == ['done'] * 4 + ['failed']
    (failed,) = (entry for entry in entries.values() if entry['status'] == 'failed')
    assert failed['place'] == f'{SETS[0]}/{broken.stem}'
    assert str(broken) in failed['reason']
    capsys.readouterr()
    assert main(many) == SOME_SKIPPED
    assert '5 images, 4 of them done before' in capsys.readouterr().err
    assert ledger(tmp_path / 'many').keys() == entries.keys()
