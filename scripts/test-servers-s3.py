"""moto's S3 at a port of loopback. S3 keeps two writers of one object apart, and moto does not: it looks whether an
object is there, and then puts it. So here what changes something is done one at a time. S3 also removes and puts an
object only if it has the tag that is required; here that is looked at before moto sees the request."""

import io
import sys
import threading

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import run_simple


class OneWriterAtATime:
    def __init__(self, app):
        self.app = app
        self.turn = threading.Lock()

    def __call__(self, environ, start_response):
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return self.app(environ, start_response)
        # Before its turn, so that nobody waits for a client that sends slowly.
        terminated = environ.get("wsgi.input_terminated", False)
        length = -1 if terminated else int(environ.get("CONTENT_LENGTH") or 0)
        environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(length))
        with self.turn:
            if not self.holds(environ):
                start_response("412 Precondition Failed", [("Content-Type", "application/xml")])
                return [b"<Error><Code>PreconditionFailed</Code></Error>"]
            return list(self.app(environ, start_response))

    def holds(self, environ):
        required = environ.pop("HTTP_IF_MATCH", None)
        if required is None:
            return True
        found = {}

        def keep(status, headers, exc_info=None):
            found.update((name.lower(), value) for name, value in headers)

        head = dict(environ, REQUEST_METHOD="HEAD", CONTENT_LENGTH="0")
        head["wsgi.input"] = io.BytesIO()
        list(self.app(head, keep))
        return found.get("etag") == required


if __name__ == "__main__":
    app = OneWriterAtATime(DomainDispatcherApplication(create_backend_app))
    run_simple("127.0.0.1", int(sys.argv[1]), app, threaded=True, request_handler=MotoRequestHandler)
