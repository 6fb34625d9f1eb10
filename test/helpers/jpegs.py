"""JPEGs as cameras send them, whole and damaged, drawn for tests."""

import cv2
import numpy as np


def scene(height=120, width=160, seed=0):
    """Return uint8 (H, W, 3) RGB of slopes, edges and noise: no block is flat."""
    noise = np.random.default_rng(seed).integers(-20, 21, (height, width, 3))
    y, x = np.mgrid[0:height, 0:width]
    slopes = np.stack([40 + x, 60 + y, 200 - x // 2], axis=-1)
    slopes[height // 3 : height // 2, width // 4 : width // 2] = (220, 60, 30)
    return np.clip(slopes + noise, 0, 255).astype(np.uint8)


def jpeg(pixels, *options):
    """Return (H, W, 3) RGB or (H, W) grey as JPEG; options as cv2.imencode takes them."""
    stored = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    done, data = cv2.imencode('.jpg', stored, [cv2.IMWRITE_JPEG_QUALITY, 92, *options])
    assert done
    return data.tobytes()


def opencv(data):
    """Return what OpenCV makes of a JPEG, RGB: the oracle for whole ones."""
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    return cv2.imdecode(np.frombuffer(data, np.uint8), flags)[..., ::-1]


def segments(data):
    """Return (marker, begin, end) of every segment before the first scan, and the scan's own."""
    place, found = 2, []
    while not found or found[-1][0] != 0xDA:
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], 'big')
        found.append((data[place + 1], place, end))
        place = end
    return found


def scan_begin(data):
    """Return where the entropy-coded bytes of the first scan begin."""
    return segments(data)[-1][2]


def without(data, marker):
    """Return a JPEG without its segments of one kind."""
    drop = [(begin, end) for kind, begin, end in segments(data) if kind == marker]
    assert drop
    for begin, end in reversed(drop):
        data = data[:begin] + data[end:]
    return data


def restarts(data):
    """Return the places of a JPEG's restart markers."""
    begin = scan_begin(data)
    return [
        place
        for place in range(begin, len(data) - 1)
        if data[place] == 0xFF and 0xD0 <= data[place + 1] <= 0xD7
    ]
