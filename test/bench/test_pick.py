# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Which bundle meets a rate: candidates, order, time limit, the program on a real bundle."""

import json
from pathlib import Path

from ood_perception.bench.cases import Case
from ood_perception.bench.pick import (
    Candidate,
    candidates,
    known_figures,
    measured,
    ranked,
    to_json,
)
from ood_perception.bundle.store import load_bundle, shipped_bundles
from ood_perception.cli.pick import as_text, pick

GOOD = Candidate('good', 'f32', True, {'set': 90.0}, (500.0, 510.0))
FAIR = Candidate('fair', 'bf16', False, {'set': 80.0}, (50.0, 55.0))
POOR = Candidate('poor', 'bf16', False, {'set': 60.0}, (20.0, 25.0))
UNKNOWN = Candidate('unknown', 'f32', False, {}, (10.0, 11.0))


class Stub:
    """A measuring process that answers at once."""

    def __init__(self, case, milliseconds, error=''):
        self.case, self.milliseconds, self.error = case, milliseconds, error
        self.runs = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def ready(self):
        return {}

    def measure(self, runs, keep=True):
        self.runs += runs if keep else 0

    def times(self):
        return {'total': [self.milliseconds] * self.runs}


def test_the_best_of_those_that_meet_the_rate_comes_first():
    assert ranked([GOOD, POOR, UNKNOWN, FAIR], 10.0) == [FAIR, POOR, UNKNOWN, GOOD]
    answer = to_json([GOOD, POOR], 10.0)
    assert answer['chosen']['bundle'] == 'poor'
    assert [row['meets'] for row in answer['all']] == [True, False]
    assert to_json([GOOD], 10.0)['chosen'] is None


def test_the_text_says_how_to_start_the_node():
    text = as_text([GOOD, FAIR], 10.0)
    assert text.splitlines()[-1].endswith('-p bundle:=fair -p precision:=bf16 -p views:=false')
    assert 'nothing meets 99 Hz; the fastest: fair in bf16, 20.0 Hz' in as_text([GOOD, FAIR], 99.0)


def test_every_candidate_is_measured_as_what_it_is_and_errors_are_told():
    cases = []

    def opened(case):
        cases.append(case)
        return Stub(case, 40.0, 'no bf16 here' if case.precision == 'bf16' else '')

    places = {'good': Path('/g'), 'fair': Path('/f')}
    wanted = [GOOD, FAIR]
    found = list(measured(wanted, places, Case(''), 60.0, lambda text: None, opened))
    assert [(c.bundle, c.precision, c.views) for c in cases] == [
        ('/g', 'f32', 'all'), ('/f', 'bf16', 'whole'),
    ]  # fmt: skip
    assert found[0].hz == 25.0
    assert found[1].reason == 'no bf16 here'


def test_what_the_time_does_not_allow_is_said():
    found = list(measured([GOOD], {}, Case(''), -1.0, lambda text: None))
    assert 'not measured' in found[0].reason


def test_figures_count_for_the_very_bundle_alone():
    bundle = load_bundle('road_open')
    row = {'precision': 'f32', 'views': False, 'sets': {'a': 1.0}}
    known = {'road_open': {'sha256': bundle.sha256, 'ap': [row]}}
    found = candidates('road_open', bundle, ['f32', 'int8'], known)
    assert [(c.precision, c.views, dict(c.ap)) for c in found] == [
        ('f32', True, {}), ('f32', False, {'a': 1.0}), ('int8', True, {}), ('int8', False, {}),
    ]  # fmt: skip
    known['road_open']['sha256'] = 'of another version'
    assert not any(c.ap for c in candidates('road_open', bundle, ['f32'], known))
    # without ranges there is no int8
    assert [c.precision for c in candidates('', load_bundle('road_fast'), ['int8'], {})] == []


def test_what_ships_is_of_the_bundles_that_ship():
    for name, known in known_figures().items():
        assert known['sha256'] == load_bundle(shipped_bundles()[name]).sha256, name
        assert all(0 <= v <= 100 for row in known['ap'] for v in row['sets'].values())


def test_the_program_refuses_rates_below_0(capsys):
    assert pick(['--hz', '-1']) == 1
    assert 'give numbers above 0' in capsys.readouterr().err


def test_a_bundle_of_ones_own_is_measured(tiny_bundle, capsys):
    words = [str(tiny_bundle), '--hz', '0.01', '--seconds', '30', '--precision', 'f32']
    assert pick([*words, '--threads', '1', '--camera', '64x48', '--json']) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer['chosen']['hz'] > 0.01
    assert answer['chosen']['ap'] == {}
