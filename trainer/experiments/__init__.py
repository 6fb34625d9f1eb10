# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Tables of rows on sets of anomalies: choices, ablations, each head's own table, the leaderboard.

Every table is a YAML file under config/train, a command of the trainer and a page under docs. What
was measured is kept: a run that was stopped goes on. Trainings and heads import nothing from here.
"""
