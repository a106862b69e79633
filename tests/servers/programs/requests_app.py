"""A program with `requests-cache`: `requests_app.py FILE COMMAND ARGUMENTS...`, with an answer in JSON.

What it asks for are pages of a server of its own: each request that reaches that is counted.
"""

import http.server
import json
import sys
import threading

import requests
import requests_cache

asked = 0


class Pages(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        global asked
        asked += 1
        page = b"page " + self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *_):
        pass


session = requests_cache.CachedSession(
    sys.argv[1], backend="sqlite", use_cache_dir=False, wal=True, expire_after=3600
)


def fetch(port):
    server = http.server.HTTPServer(("127.0.0.1", int(port)), Pages)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    texts = [session.get(f"http://127.0.0.1:{port}/{page}").text for page in range(10)]
    server.shutdown()
    return [asked, texts]


def clear():
    session.cache.clear()


answer = globals()[sys.argv[2]](*sys.argv[3:])
session.close()
print(json.dumps(answer))
