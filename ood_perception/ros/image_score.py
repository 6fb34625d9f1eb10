# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The judgement of a whole picture as a message."""

from __future__ import annotations

import math
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from ood_perception.postprocess.image_score import Inspection


def image_score_message(judged: Inspection, threshold: float, name: str, header: Any) -> Any:
    """
    Return the judgement of a whole picture as a DiagnosticArray with one status.

    Of the stamped messages that every installation has, it alone says "good" or "bad" in a typed
    field: level OK below the threshold (or where it is 0: no threshold), WARN from it on, ERROR
    where nothing was scored, since such a picture was not inspected.
    """
    level, text = DiagnosticStatus.OK, f'image score {judged.surprisal:.3f}'
    if math.isnan(judged.surprisal):
        level = DiagnosticStatus.ERROR
        text = 'not inspected: no pixel lies in the region of interest'
    elif threshold > 0.0:
        anomalous = judged.surprisal >= threshold
        level = DiagnosticStatus.WARN if anomalous else DiagnosticStatus.OK
        text = f'{"anomalous" if anomalous else "normal"}: {text}, threshold {threshold:.3f}'
    values = {
        'surprisal': judged.surprisal,
        'threshold': threshold,
        'scored_share': judged.scored,
        'flagged_share': judged.flagged,
    }
    pairs = [KeyValue(key=key, value=repr(value)) for key, value in values.items()]
    status = DiagnosticStatus(
        level=level, name=name, message=text, hardware_id=header.frame_id, values=pairs
    )
    return DiagnosticArray(header=header, status=[status])
