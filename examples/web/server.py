#!/usr/bin/env python3
"""A web page that searches while you type, fed by the extension: Python's own server, one page, one query.

    python examples/notes/notes.py index docs             # fills notes.db
    python examples/web/server.py notes.db                # http://127.0.0.1:8000

The page draws the paragraphs as points (vec_project), and lights those that are found.
"""
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

sys.path.insert(0, str(Path(__file__).parents[1] / "notes"))
import notes  # noqa: E402

PAGE = Path(__file__).with_name("page.html").read_bytes()


class Handler(BaseHTTPRequestHandler):
    database = ""
    local = threading.local()

    def db(self):
        # A connection for each thread: SQLite's readers don't wait for each other, and all share one map of the index.
        if not hasattr(self.local, "db"):
            self.local.db = notes.connect(self.database)
        return self.local.db

    def do_GET(self):
        url = urlsplit(self.path)
        if url.path == "/":
            self.answer(200, "text/html; charset=utf-8", PAGE)
        elif url.path == "/search":
            text = parse_qs(url.query).get("q", [""])[0]
            found = notes.search(self.db(), text, 10)
            self.json([{"path": path, "line": line, "body": body[:400]} for path, line, body in found])
        elif url.path == "/map":
            rows = self.db().execute(
                "SELECT n.path, n.line, p.x, p.y FROM vec_project('notes', 'v') AS p JOIN notes AS n ON n.id = p.id"
            )
            self.json([{"key": f"{path}:{line}", "x": x, "y": y} for path, line, x, y in rows])
        else:
            self.answer(404, "text/plain", b"not found")

    def json(self, value):
        self.answer(200, "application/json", json.dumps(value).encode())

    def answer(self, status, kind, body):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


def serve(database, port=8000):
    handler = type("Bound", (Handler,), {"database": database, "local": threading.local()})
    return ThreadingHTTPServer(("127.0.0.1", port), handler)


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1]).exists():
        raise SystemExit("usage: server.py notes.db (made by examples/notes/notes.py index FOLDER)")
    server = serve(sys.argv[1])
    print("http://127.0.0.1:8000")
    server.serve_forever()
