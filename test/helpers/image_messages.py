# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Camera messages as arrays, and their headers."""

import numpy as np


def array(message):
    dtype = np.float32 if message.encoding == '32FC1' else np.uint8
    shape = (message.height, message.width) + ((3,) if message.encoding == 'rgb8' else ())
    return np.frombuffer(message.data, dtype).reshape(shape)


def header(message):
    return message.header.stamp.sec, message.header.stamp.nanosec, message.header.frame_id
