# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Class maps as people write them: one value for a list, an empty one for none, all else named."""

from __future__ import annotations

import pytest
import yaml

from ood_perception.errors import DataError

pytest.importorskip('torch')

from trainer.data.class_map import class_map_of

CLASSES = 'classes: [{name: sky, ids: [0]}, {name: road, ids: [1]}]\n'


def read(text):
    return class_map_of(yaml.safe_load(text), 'classes.yaml')


@pytest.mark.parametrize(
    ('text', 'ids'),
    [
        (CLASSES, {0: 0, 1: 1, 255: 255}),
        (CLASSES + 'ignored: 254', {0: 0, 1: 1, 254: 255}),
        (CLASSES + 'ignored:', {0: 0, 1: 1}),
        (CLASSES + 'ignored: []', {0: 0, 1: 1}),
        ('classes: [{name: sky, ids: 4}, {name: road, ids: 0}]', {4: 0, 0: 1, 255: 255}),
        ('classes: [{name: sky, ids: }, {name: road}]', {1: 1, 255: 255}),
        ('classes: [{name: sky, color: }, {name: 7}]', {0: 0, 1: 1, 255: 255}),
    ],
)
def test_one_value_is_a_list_of_one_and_an_empty_one_is_none(text, ids):
    assert read(text).ids == ids


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ("classes: [{name: sky, ids: ['7']}]", r"class sky: ids: label id '7' is not"),
        ('classes: [{name: sky, ids: yes}]', 'ids: label id True is not'),
        ('classes: [{name: sky, ids: [1.0]}]', r'label id 1\.0 is not'),
        ('classes: [{name: sky, ids: -1}]', 'label id -1 is not'),
        ('classes: [{name: sky, ids: {a: 1}}]', "label id {'a': 1} is not"),
        ("classes: [{name: sky, ids: '0-5'}]", "label id '0-5' is not"),
        (CLASSES + "ignored: '255'", "ignored: label id '255' is not"),
        (CLASSES + 'ignored: 1', 'ignored: label id 1 belongs to two classes'),
        (
            CLASSES + 'ignore: 255',
            r"unknown \['ignore'\]; .* did you mean 'ignored'",
        ),
        ('classes: [{name: sky, id: 0}]', r"classes 1: unknown \['id'\]; .* did you mean 'ids'"),
        ('classes: [{name: }]', 'name None is no text'),
        ('classes: [{name: no}]', 'name False is no text'),
        ('classes: [{name: sky, color: 0}]', 'class sky: color 0 is not three numbers'),
        ('classes: [{name: sky, color: [a, b, c]}]', 'is not three numbers'),
        ('classes: [{name: sky, color: [0, 0, 256]}]', 'is not three numbers'),
        ('classes: [sky, road]', "classes 1: expected keys and values, found 'sky'"),
        ('classes: {sky: 0}', "classes is {'sky': 0}, expected a list"),
        ('classes:', 'classes is None, expected a list'),
        ('', 'expected keys and values, found None'),
    ],
)
def test_what_is_wrong_is_named_with_its_key_and_value(text, words):
    with pytest.raises(DataError, match=words) as caught:
        read(text)
    assert str(caught.value).startswith('classes.yaml: ')


@pytest.mark.parametrize('ignored', ['[0, 0, 0]', '[[0, 0, 0]]'])
def test_one_colour_is_a_list_of_one(ignored):
    text = f'classes: [{{name: sky, colors: [1, 2, 3]}}]\nignored_colors: {ignored}'
    assert read(text).label_colors == (((1, 2, 3), 0), ((0, 0, 0), 255))


@pytest.mark.parametrize('value', ['5', '[5]', '[1, 2]', '[[1, 2, 3], 4]', 'red', '[[1, 2, yes]]'])
def test_what_is_no_colour_is_named(value):
    with pytest.raises(DataError, match=r'yaml: color .* is not three numbers'):
        read(f'classes: [{{name: sky, colors: {value}}}]')
