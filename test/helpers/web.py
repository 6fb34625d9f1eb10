"""A web server on this machine whose answers a test writes, byte for byte if it has to."""

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextlib.contextmanager
def serving(answer):
    """
    Yield (address, the requests' headers): answer(handler, number of the request) answers them.

    Plain http, on 127.0.0.1.
    """
    asked, ended = [], threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(dict(self.headers))
            with contextlib.suppress(OSError):  # the client may have gone
                answer(self, len(asked))

        def log_message(self, *args):
            pass

    Handler.ended = ended
    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f'http://127.0.0.1:{server.server_port}/weights', asked
    finally:
        ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


def whole(data):
    """Answer with all of `data`, whatever range is asked for."""

    def answer(handler, number):
        handler.send_response(200)
        handler.send_header('Content-Length', str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    return answer
