import http.server
import socket
import threading
import time

import pytest

from media import web


class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        kind = self.path.strip("/")
        if kind.startswith("to-"):
            self.send_response(302)
            target = {"ftp": "ftp://127.0.0.1/x", "same": f"http://127.0.0.1:{self.server.server_port}/good"}
            target["private"] = f"http://127.0.0.2:{self.server.server_port}/good"
            self.send_header("Location", target[kind[3:]])
            self.end_headers()
        elif kind == "drip":
            try:
                for letter in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 400:
                    self.wfile.write(bytes([letter]))
                    time.sleep(0.05)
            except OSError:
                return
        else:
            self.send_response(200)
            self.send_header("Content-Length", "100" if kind == "cut" else "4")
            self.end_headers()
            self.wfile.write(b"good")

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address():
    with http.server.ThreadingHTTPServer(("", 0), Server) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_file_comes_whole_and_no_longer_than_allowed(address):
    assert web.fetch(f"{address}/good", limit=100, seconds=5) == b"good"
    assert web.fetch(f"{address}/good", limit=3, seconds=5) == b"goo"
    assert web.fetch(f"{address}/to-same", limit=100, seconds=5) == b"good"


def test_the_certificates_are_read_once(address, monkeypatch):
    assert web.fetch(f"{address}/good", limit=100, seconds=5) == b"good"

    def again(*_, **__):
        raise AssertionError("read again")

    monkeypatch.setattr("ssl.SSLContext.load_default_certs", again)
    assert web.fetch(f"{address}/good", limit=100, seconds=5) == b"good"


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("cut", "broke off after 4 of 100 bytes"),
        ("to-ftp", "leads to ftp://, not to http"),
        ("to-private", "127.0.0.2, which is not a public address"),
    ],
)
def test_what_is_not_fetched(address, path, says):
    with pytest.raises(OSError, match=says):
        web.fetch(f"{address}/{path}", limit=100, seconds=5)
    with pytest.raises(ValueError, match="not an http"):
        web.fetch("file:///etc/passwd", limit=100, seconds=5)


def test_one_deadline_holds_for_a_server_that_drips(address):
    before, began = threading.active_count(), time.monotonic()
    with pytest.raises(TimeoutError, match="not finished after 0 s"):
        web.fetch(f"{address}/drip", limit=100, seconds=0.3)
    assert time.monotonic() - began < 5
    deadline = time.monotonic() + 2
    while threading.active_count() > before + 1 and time.monotonic() < deadline:  # the server's own ends later
        time.sleep(0.01)
    assert threading.active_count() <= before + 1


def test_one_deadline_holds_for_a_server_that_does_not_answer():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(OSError, match=r"timed out|not finished"):
            web.fetch(f"http://127.0.0.1:{silent.getsockname()[1]}/", limit=100, seconds=0.3)
        assert time.monotonic() - began < 5
