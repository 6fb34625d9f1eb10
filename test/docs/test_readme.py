# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The README's table of results is cut out of the leaderboard: no number is typed."""

import re

from paths import ROOT

LEADERBOARD = ROOT / 'docs' / 'results' / 'leaderboard.md'
# Rows of the leaderboard as the README names them.
HEADS = {
    'PixOOD': 'PixOOD',
    'max-softmax': 'max-softmax',
    'max-logit of road and pavement': 'max-logit of road and pavement',
    'Mahalanobis': 'Mahalanobis',
    'cDNP': 'cDNP',
    'PixOOD + cDNP mean': 'PixOOD + cDNP, mean',
    'NFlowJS': 'NFlowJS',
    'UEM D-D': 'UEM, shown pasted objects',
    'RPL + CoroCL': 'RPL + CoroCL, shown pasted objects',
}
COLUMNS = {
    'RoadObstacle, road': ('road_obstacle_dev', 'Road', 'AP'),
    'RoadAnomaly, ground': ('road_anomaly_dev', 'Predicted ground', 'AP'),
    'LostAndFound, ground': ('lost_and_found_dev', 'Predicted ground', 'AP'),
    'head, ms': ('Cost', '', 'ms a frame'),
}


def leaderboard():
    """Return (section, region) -> head -> column -> cell."""
    tables, section, region, names = {}, '', '', []
    for line in LEADERBOARD.read_text(encoding='utf-8').splitlines():
        if line.startswith('### '):
            section, region, names = line.split()[1], '', []
        elif re.fullmatch(r'[A-Z][^|]*:', line):
            region, names = line[:-1], []
        elif line.startswith('| '):
            cells = [cell.strip() for cell in line.strip('|').split('|')]
            names = names or cells
            tables.setdefault((section, region), {})[cells[0]] = dict(
                zip(names, cells, strict=True)
            )
    return tables


def results_table():
    """Return the README's table."""
    tables = leaderboard()
    lines = ['| AP, % | ' + ' | '.join(COLUMNS) + ' |', '| --- ' * (len(COLUMNS) + 1) + '|']
    for head, name in HEADS.items():
        cells = [tables[s, region][head][column] for s, region, column in COLUMNS.values()]
        lines.append(f'| {name} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def test_the_table_is_the_leaderboards():
    text = (ROOT / 'README.md').read_text(encoding='utf-8')
    expected = results_table()
    assert expected in text, f'README.md, Results: put this table there\n\n{expected}'
