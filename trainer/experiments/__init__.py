# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Studies: a YAML file of rows under config/train, one command of the trainer, a page under docs.

What was measured is kept: a run that was stopped goes on. Trainings and heads import nothing from
here.
"""
