# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A real S3 server on this machine (moto), which counts the bytes that it gives away."""

import contextlib
import os
import threading

import pytest

KEYS = {'AWS_ACCESS_KEY_ID': 'test', 'AWS_SECRET_ACCESS_KEY': 'test', 'AWS_REGION': 'us-east-1'}


@contextlib.contextmanager
def s3_server():
    """Yield a list that grows by (method, path, bytes) of every answer; AWS_* point to it."""
    s3fs = pytest.importorskip('s3fs')
    pytest.importorskip('upath')
    flask = pytest.importorskip('moto.server')
    import werkzeug.serving

    answers = []
    app = flask.DomainDispatcherApplication(flask.create_backend_app)

    def counting(environ, start_response):
        body = list(app(environ, start_response))
        size = sum(len(part) for part in body)
        answers.append((environ['REQUEST_METHOD'], environ['PATH_INFO'], size))
        return body

    server = werkzeug.serving.make_server('127.0.0.1', 0, counting, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    values = {**KEYS, 'AWS_ENDPOINT_URL': f'http://127.0.0.1:{server.server_port}'}
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    s3fs.S3FileSystem.clear_instance_cache()  # it keeps the address of an earlier server
    try:
        yield answers
    finally:
        server.shutdown()
        thread.join()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
