# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""One road taxonomy: every set's classes stand in it once, and labels are mapped by them."""

import numpy as np
import pytest
from owned_sets import write_set

pytest.importorskip('torch')

from ood_perception.errors import ConfigError, DataError
from trainer.datasets import SETS, load_images, open_set
from trainer.datasets.taxonomy import TAXONOMIES, load_taxonomy

ROAD = load_taxonomy('road')
FIXED = (
    'bdd100k', 'camvid', 'cityscapes', 'comma10k', 'idd', 'issu', 'road_open', 'streethazards'
)  # fmt: skip


@pytest.mark.parametrize('name', FIXED)
def test_every_class_of_a_set_is_listed_and_nothing_else(name):
    assert set(ROAD.places(name)) == set(SETS[name].class_map.names)


@pytest.mark.parametrize('name', ['camvid', 'idd_lite'])
def test_road_against_the_rest_has_the_classes_of_the_open_roads(name):
    taxonomy, classes = load_taxonomy('open_road'), SETS['road_open'].class_map
    assert tuple(taxonomy.classes) == classes.names
    assert tuple(taxonomy.classes.values()) == classes.colors
    assert set(taxonomy.places(name)) == set(SETS[name].class_map.names)
    assert list(taxonomy.places(name).values()).count(0) == 1


@pytest.mark.parametrize('name', ROAD.sets)
def test_a_name_stands_once_in_a_known_class(name):
    table = ROAD.sets[name]
    assert set(table) <= {*ROAD.classes, 'ignored'}
    listed = [own for owns in table.values() for own in owns]
    assert len(set(listed)) == len(listed)
    assert 'road' in table


def test_the_sizes_of_the_published_tables():
    """Mapillary 1.2 has 66 names with its unlabelled one, GOOSE 64, three of them left out."""
    assert len(ROAD.places('mapillary')) == 66
    assert len(ROAD.places('goose')) == 61


@pytest.mark.parametrize('layout', ['cityscapes', 'mapillary', 'bdd100k', 'goose', 'comma10k'])
def test_labels_are_those_of_the_taxonomy(layout, tmp_path):
    split = 'validation' if layout == 'mapillary' else 'val'
    root = write_set(layout, tmp_path, (split,), 2)
    own, got = load_images(layout, root, split), load_images(f'{layout}@road', root, split)
    assert got.classes.names == tuple(ROAD.classes)
    (image, before), (same, after) = own.read(1), got.read(1)
    assert np.array_equal(image, same)
    places = ROAD.places(layout)
    for place in np.unique(before):
        assert set(after[before == place]) == {places[own.classes.names[place]]}
    assert own.encoding() != got.encoding(), 'nothing cached of the one is taken for the other'


def test_an_address_may_name_a_taxonomy(tmp_path):
    write_set('bdd100k', tmp_path / 'bdd100k', ('val',), 2)
    got = open_set('bdd100k@road/val', tmp_path)
    assert (got.name, got.images.classes.names[:2]) == ('bdd100k@road/val', ('road', 'sidewalk'))
    assert TAXONOMIES == ('road', 'open_road')


def test_mistakes_name_what_is_known(tmp_path):
    root = write_set('mapillary', tmp_path, ('validation',), 1)
    with pytest.raises(ConfigError, match="unknown taxonomy 'sea'; known are road"):
        load_images('mapillary@sea', root, 'validation')
    write_set('lars', tmp_path / 'lars', ('val',), 1)
    with pytest.raises(ConfigError, match=r"does not list 'lars'; it lists cityscapes, "):
        load_images('lars@road', tmp_path / 'lars', 'val')
    config = root / 'config.json'
    config.write_text(config.read_text().replace('Sidewalk', 'Footway'))
    with pytest.raises(DataError, match='lists no Footway of mapillary'):
        load_images('mapillary@road', root, 'validation')
