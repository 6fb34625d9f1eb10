# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Parameter files read without rcl: as rcl reads them, and nothing is left out without a word."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
from paths import ROOT

from ood_perception.errors import ConfigError
from ood_perception.parameters.files import read_parameters, read_sections
from ood_perception.parameters.options import chosen_parameters

RATE = '{ros__parameters: {false_alarm_rate: 0.2, roi: {mode: none}}}'
FOUND = {'false_alarm_rate': 0.2, 'roi.mode': 'none'}
OTHER = '{ros__parameters: {video_device: /dev/video0}}'


@pytest.fixture
def read(tmp_path):
    """Write a parameter file and read it: the values, and what was told."""

    def write_and_read(text, node=''):
        path = tmp_path / 'node.yaml'
        path.write_text(text)
        told = []
        return read_parameters(path, told.append, node), '\n'.join(told)

    return write_and_read


@pytest.mark.parametrize(
    'text',
    [
        f'road_anomaly: {RATE}',
        f'/road_anomaly: {RATE}',
        f'/robot1/road_anomaly: {RATE}',
        f'robot1/road_anomaly: {RATE}',
        f'/fleet/robot1/road_anomaly: {RATE}',
        f'robot1:\n  road_anomaly: {RATE}',
        f'/fleet:\n  robot1:\n    road_anomaly: {RATE}',
        f'warehouse: {RATE}',
        f'/robot1/warehouse: {RATE}',
        f'/**: {RATE}',
        f'"**": {RATE}',
        f'/*: {RATE}',
        f'/**/road_anomaly: {RATE}',
        f'/*/road_anomaly: {RATE}',
        f'/robot1/**: {RATE}',
        f'/robot1/*: {RATE}',
        f'/**:\n  road_anomaly: {RATE}',
        'road_anomaly:\n  ros__parameters:\n    false_alarm_rate: 0.2\n    roi.mode: none',
    ],
)
def test_the_one_nodes_section_is_read_whatever_the_node_is_called(read, text):
    values, told = read(text)
    assert values == FOUND
    assert told == ''


def test_the_section_of_this_node_is_read_and_the_others_are_named(read):
    values, told = read(f'/camera/driver: {OTHER}\n/robot1/warehouse: {RATE}')
    assert values == FOUND
    assert '/camera/driver' in told
    values, told = read(f'warehouse: {OTHER}\nroad_anomaly: {RATE}')
    assert values == FOUND
    assert '/warehouse' in told


def test_of_several_nodes_one_must_be_chosen(read):
    text = (
        f'/robot1/road_anomaly: {RATE}\n/robot2/road_anomaly: {{ros__parameters: {{threads: 2}}}}'
    )
    with pytest.raises(ConfigError, match=r'--node.*/robot1/road_anomaly \(line 1\), /robot2'):
        read(text)
    values, told = read(text, '/robot2/road_anomaly')
    assert values == {'threads': 2}
    assert '/robot1/road_anomaly' in told
    assert read(text, 'robot1/road_anomaly')[0] == FOUND
    with pytest.raises(ConfigError, match='give the whole name'):
        read(text, 'road_anomaly')
    with pytest.raises(ConfigError, match=r'no section for --node /robot3/road_anomaly.*/robot1'):
        read(text, '/robot3/road_anomaly')


def test_a_chosen_node_takes_the_sections_of_all_nodes_too(read):
    text = f'/**: {{ros__parameters: {{threads: 3}}}}\nwarehouse: {RATE}\nshop: {RATE}'
    assert read(text, 'shop')[0] == {**FOUND, 'threads': 3}
    with pytest.raises(ConfigError, match='--node'):
        chosen_parameters(SimpleNamespace(params=None, node='shop'), (), print)


def test_a_file_for_other_nodes_alone_is_an_error_that_lists_them(read):
    with pytest.raises(ConfigError, match=r'/camera/driver \(line 1\)'):
        read(f'/camera/driver: {OTHER}')


def test_a_later_section_wins(read):
    first, second = (f'{{ros__parameters: {{threads: {n}}}}}' for n in (1, 2))
    assert read(f'road_anomaly: {first}\n/**: {second}')[0] == {'threads': 2}
    assert read(f'/**: {second}\nroad_anomaly: {first}')[0] == {'threads': 1}
    assert read(f'/**: {second}\n/*/road_anomaly: {first}')[0] == {'threads': 1}


def test_names_that_the_node_does_not_have_are_told_with_the_nearest(read):
    values, told = read(
        'road_anomaly:\n  ros__parameters:\n    false_alarm_rat: 0.2\n    roi_mode: none\n'
        '    use_sim_time: true\n    qos_overrides: {/score: {publisher: {depth: 2}}}\n'
    )
    assert values == {}
    assert 'false_alarm_rat (did you mean false_alarm_rate?)' in told
    assert 'roi_mode (did you mean roi.mode?)' in told
    assert 'use_sim_time' not in told
    assert 'qos_overrides' not in told


def test_what_only_the_node_uses_is_named_where_it_differs_from_the_default(read):
    values, told = read('/**: {ros__parameters: {minimum_size: 0.2, autostart: true}}')
    assert values == {}
    assert 'minimum_size' in told
    assert 'autostart' not in told


@pytest.mark.parametrize(
    ('line', 'value'),
    [
        ('false_alarm_rate: 1e-3', 0.001),
        ('false_alarm_rate: .5', 0.5),
        ('minimum_area: 100', 100.0),
        ('minimum_area: +1', 1.0),
        ('minimum_area: 1e3', 1000.0),
        ('minimum_area: 0x10', 16.0),
        ('minimum_area: !!float 5', 5.0),
        ('threads: 2.0', 2),
        ('persistence.mask: yes', True),
        ('persistence.mask: off', False),
        ('persistence.mask: y', True),
        ("bundle: 'no'", 'no'),
        ('bundle: !!str 5', '5'),
        ('in_distribution: []', ()),
        ("in_distribution: ['']", ()),
        ('in_distribution: [Road]', ('Road',)),
        ('in_distribution: Road', ('Road',)),
    ],
)
def test_values_are_those_that_the_node_takes(read, line, value):
    values, told = read(f'road_anomaly:\n  ros__parameters:\n    {line}\n')
    assert values == {line.partition(':')[0]: value}
    assert type(next(iter(values.values()))) is type(value)
    assert told == ''


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('road_anomaly: {ros__parameters: {minimum_area: large}}', ["'large'", 'a number']),
        ('road_anomaly: {ros__parameters: {minimum_area: "5"}}', ["'5'", 'a number']),
        ('road_anomaly: {ros__parameters: {minimum_area: yes}}', ['True', 'a number']),
        ('road_anomaly: {ros__parameters: {threads: 2.5}}', ['2.5', 'a whole number']),
        ('road_anomaly: {ros__parameters: {bundle: 5}}', ['bundle is 5', 'a text']),
        ('road_anomaly: {ros__parameters: {in_distribution: 5}}', ['is 5', 'a list']),
        ('road_anomaly: {ros__parameters: {in_distribution: [1]}}', ['[1]', 'a list']),
        ('road_anomaly: {ros__parameters: {pin_threads: rarely}}', ['rarely', 'never']),
        ('road_anomaly: {ros__parameters: {output_scale: 3}}', ['output_scale is 3', '0.05']),
        ('road_anomaly: {ros__parameters: {false_alarm_rate: .nan}}', ['false_alarm_rate']),
        ('road_anomaly:\n  ros__parameters:\n    bundle:\n', ['line 3', "write ''"]),
        ('road_anomaly:\n  ros__parameters: [1]\n', ['line 2', 'names with values']),
        ('road_anomaly: {false_alarm_rate: 0.2}', ['ros__parameters', 'line 1']),
        ('road_anomaly: {ros_parameters: {false_alarm_rate: 0.2}}', ['ros__parameters']),
        ('false_alarm_rate: 0.2', ['ros__parameters', 'line 1']),
        ('ros__parameters: {false_alarm_rate: 0.2}', ['below no name']),
        ('- road_anomaly', ['ros__parameters']),
        ('just words', ['just words']),
        (f'/robot*: {RATE}', ['/robot*', 'whole names']),
        (f'my-robot: {RATE}', ['my-robot', 'underscores']),
        (f'/robot1/road_anomaly/: {RATE}', ['road_anomaly/', 'single slashes']),
        ('road_anomaly: {', ['line 1']),
        ('road_anomaly: &a {b: *a}', ['inside of what it names']),
    ],
)
def test_what_cannot_be_meant_is_an_error_that_names_the_file(read, tmp_path, text, words):
    with pytest.raises(ConfigError) as raised:
        read(text)
    for word in (str(tmp_path / 'node.yaml'), *words):
        assert word in str(raised.value)


@pytest.mark.parametrize(
    ('text', 'values', 'words'),
    [
        ('', {}, 'empty'),
        ('road_anomaly:\n  ros__parameters:\n', {}, 'sets nothing'),
        ('a: {ros__parameters: {threads: 1, threads: 2}}', {'threads': 2}, 'set twice'),
        ('a: {ros__parameters: {roi.mode: labels, roi: {mode: none}}}', {'roi.mode': 'none'},
         'set twice'),
        ('a: {ros__parameters: {bundle: &b x, head: *b}}', {'bundle': 'x', 'head': 'x'},
         'the node refuses them'),
    ],
)  # fmt: skip
def test_what_a_user_may_not_have_meant_is_read_and_told(read, text, values, words):
    found, told = read(text)
    assert found == values
    assert words in told


SHIPPED = sorted(
    path for path in (ROOT / 'config').glob('*.yaml') if not path.name.startswith('nav2_')
)


@pytest.mark.parametrize('path', SHIPPED, ids=lambda p: p.stem)
def test_the_shipped_files_are_read_and_have_no_unknown_names(path):
    told = []
    assert read_parameters(path, told.append)
    assert 'no such parameters' not in '\n'.join(told)


RCL = """
import json, sys
import rclpy
from rclpy.node import Node
for number, (file, namespace) in enumerate(json.load(sys.stdin)):
    context = rclpy.Context()
    rclpy.init(args=['--ros-args', '--params-file', file], context=context)
    node = Node('road_anomaly', namespace=namespace, context=context,
                automatically_declare_parameters_from_overrides=True)
    found = {p.name: p.value for p in node.get_parameters_by_prefix('x').values()}
    print(json.dumps(found))
    node.destroy_node()
    context.shutdown()
"""
WORDS = ['1e-3', '1e3', '.5', '5.', '+1', '-7', '0x10', '-0x10', '010', '08', '1_000', '12:30',
         '2026-01-31', 'y', 'N', 'yes', 'off', 'On', '"5"', '!!str 5', '1e', '-.5e+2', '1.5E3',
         '.inf', '-.INF', 'inf', 'Infinity', '.5.', 'true', '"true"', '0b11', '0o7', 'a b',
         '[1, 2]', '[1e-3, 2.5]', '[a, "b"]', '[y, no]']  # fmt: skip
FILES = [
    ('/', 'road_anomaly:\n  ros__parameters:\n' + ''.join(
        f'    x.w{i}: {word}\n' for i, word in enumerate(WORDS))),
    ('/', 'road_anomaly: {ros__parameters: {x: {a: 1, b: {c: 2}}, x.d: 3}}'),
    ('/', 'road_anomaly: {ros__parameters: {x.a: 1, x.b: 5}}\n'
          'road_anomaly: {ros__parameters: {x.a: 2}}'),
    ('/', 'road_anomaly: {ros__parameters: {x.a: 1, x.b: 1}}\n/**: {ros__parameters: {x.a: 2}}\n'
          '/**/road_anomaly: {ros__parameters: {x.b: 3}}'),
    *((namespace, ''.join(f'"{pattern}": {{ros__parameters: {{x.p{i}: 1}}}}\n' for i, pattern in
       enumerate(['/**', '**', '/*', '/*/road_anomaly', '/**/road_anomaly', '/a/**', '/a/*',
                  '/a/*/road_anomaly', '/a/road_anomaly', 'a/road_anomaly', '/a/b/road_anomaly',
                  'road_anomaly', '/*/*', '/b/**'])))
      for namespace in ('/', '/a', '/a/b')),
    ('/a', 'a:\n  road_anomaly: {ros__parameters: {x.a: 1}}\n'
           '  other: {ros__parameters: {x.a: 2}}'),
]  # fmt: skip


@pytest.mark.ros
def test_sections_and_values_are_those_of_rcl(tmp_path):
    pytest.importorskip('rclpy', reason='the oracle is rcl itself')
    jobs = []
    for number, (namespace, text) in enumerate(FILES):
        path = tmp_path / f'{number}.yaml'
        path.write_text(text)
        jobs.append((str(path), namespace))
    done = subprocess.run(
        [sys.executable, '-c', RCL], input=json.dumps(jobs), capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{')]
    assert len(answers) == len(FILES)
    for number, (namespace, _) in enumerate(FILES):
        node, values = f'{namespace.rstrip("/")}/road_anomaly', {}
        for section in read_sections(tmp_path / f'{number}.yaml', print):
            if section.matches(node):
                values.update(section.values)
        assert values == answers[number], FILES[number]
        same = {name: type(value) for name, value in values.items()}
        assert same == {name: type(value) for name, value in answers[number].items()}
