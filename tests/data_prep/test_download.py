"""The downloader against a local server that misbehaves as the web does."""

import collections
import contextlib
import csv
import http.server
import json
import threading
import time
import urllib.parse
from typing import ClassVar

import cv2
import numpy as np
import pytest

from data_prep import download
from data_prep.corpora import fec
from data_prep.download import Limits
from data_prep.preparation import prepare
from media.errors import UserError

PICTURE = cv2.imencode(".jpg", np.full((40, 50, 3), 90, np.uint8))[1].tobytes()
QUICK = Limits(workers=4, timeout=0.4, retries=2, wait=0.01)


class Web(http.server.BaseHTTPRequestHandler):
    asked: ClassVar[collections.Counter] = collections.Counter()
    at_once, most = 0, 0
    lock = threading.Lock()

    def log_message(self, *_):
        """Logs nothing."""

    def do_GET(self):
        with Web.lock:
            Web.asked[self.path] += 1
            Web.at_once += 1
            Web.most = max(Web.most, Web.at_once)
            number = Web.asked[self.path]
        if "/busy" in self.path:
            time.sleep(0.05)
        with Web.lock:  # before answering, because the client may then ask for its next picture
            Web.at_once -= 1
        with contextlib.suppress(OSError):  # the client rightly hangs up on a slow server
            self._answer(urllib.parse.unquote(self.path), number)

    def _answer(self, path, number):
        if path.startswith("/to/"):  # a redirect
            self.send_response(302)
            self.send_header("Location", path.removeprefix("/to/"))
            self.end_headers()
            return
        if path in ("/drip header.jpg", "/drip chunk.jpg"):
            head = b"HTTP/1.0 200 OK\r\n" + (b"" if "header" in path else b"Transfer-Encoding: chunked\r\n\r\n")
            self.wfile.write(head.replace(b"1.0", b"1.1"))
            for _ in range(100):
                self.wfile.write(b"a")  # of a header's name, or of a chunk's length
                time.sleep(0.05)
            return
        status = {"/404.jpg": 404, "/410.jpg": 410, "/503.jpg": 503}.get(path, 200)
        if path == "/flaky.jpg" and number == 1:
            status = 500
        body = b"<html>parked</html>" if path == "/page.jpg" else PICTURE
        if path == "/silent.jpg":
            time.sleep(1.0)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if path == "/cut.jpg" or (path == "/cut once.jpg" and number == 1):
            body = body[: len(body) // 2]
        if path == "/drip.jpg":
            for i in range(len(body)):
                self.wfile.write(body[i : i + 1])
                time.sleep(0.05)
        self.wfile.write(body)


@pytest.fixture
def web():
    Web.asked, Web.most, Web.at_once = collections.Counter(), 0, 0
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def wanted(web, cache, *names):
    return {f"{web}/{name}": cache / fec.cache_name(f"{web}/{name}") for name in names}


def test_every_kind_of_answer_is_tallied_and_good_pictures_are_whole(tmp_path, web):
    names = (
        "good.jpg", 'a "quoted" é.jpg', "flaky.jpg", "cut once.jpg",
        "404.jpg", "410.jpg", "page.jpg", "503.jpg", "silent.jpg", "drip.jpg", "cut.jpg",
    )  # fmt: skip
    files = wanted(web, tmp_path, *names)
    tally = download.fetch_all(files, tmp_path, QUICK, quiet=True)
    assert tally == {
        "fetched": 4, "dead: HTTP 404": 1, "dead: HTTP 410": 1, "dead: no picture": 1,
        "failed: HTTP 503": 1, "failed: too slow": 2, "failed: cut short": 1,
    }  # fmt: skip
    assert sum(tally.values()) == len(names)
    here = {url.removeprefix(web + "/") for url, path in files.items() if path.is_file()}
    assert here == set(names[:4])
    assert all(path.read_bytes() == PICTURE for path in files.values() if path.is_file())
    assert {path.name for path in tmp_path.iterdir()} == {
        download.DEAD_LINKS,
        *(p.name for p in files.values() if p.is_file()),
    }
    assert Web.asked["/404.jpg"] == 1  # not asked again
    assert Web.asked["/503.jpg"] == 3  # one attempt and two retries
    assert set(download.dead_links(tmp_path)) == {f"{web}/{name}" for name in ("404.jpg", "410.jpg", "page.jpg")}


def test_a_second_run_resumes_and_skips_dead_links(tmp_path, web):
    files = wanted(web, tmp_path, "good.jpg", "404.jpg", "503.jpg")
    download.fetch_all(files, tmp_path, QUICK, quiet=True)
    before = Web.asked.copy()
    tally = download.fetch_all({**files, **wanted(web, tmp_path, "b.jpg")}, tmp_path, QUICK, quiet=True)
    assert tally == {"there": 1, "dead: HTTP 404": 1, "failed: HTTP 503": 1, "fetched": 1}
    assert Web.asked["/good.jpg"] == before["/good.jpg"] == 1
    assert Web.asked["/404.jpg"] == 1
    assert Web.asked["/503.jpg"] == 6  # a temporary failure is tried again


def test_connections_are_bounded(tmp_path, web):
    files = wanted(web, tmp_path, *(f"busy{i}.jpg" for i in range(30)))
    limits = Limits(workers=3, timeout=5, retries=0)
    assert download.fetch_all(files, tmp_path, limits, quiet=True) == {"fetched": 30}
    assert 2 <= Web.most <= 3


def test_no_server_and_an_invalid_address(tmp_path):
    files = {url: tmp_path / fec.cache_name(url) for url in ("http://127.0.0.1:9/a.jpg", "http://127.0.0.1:x/")}
    tally = download.fetch_all(files, tmp_path, Limits(retries=0, timeout=1), quiet=True)
    assert tally == {"failed: no connection": 1, "dead: no address": 1}


def test_a_cache_that_cannot_be_written_or_read_is_one_error(tmp_path, web):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError, match="cannot be written"):
        download.fetch_all(wanted(web, tmp_path / "file", "good.jpg"), tmp_path / "file", QUICK, quiet=True)
    (tmp_path / download.DEAD_LINKS).write_text("{")
    with pytest.raises(UserError, match="remove it"):
        download.dead_links(tmp_path)


def test_fec_downloads_what_it_keeps_and_the_card_counts_the_dead(tmp_path, web):
    source = tmp_path / "fec"
    source.mkdir()
    rows = (("a", "b", "c"), ("a", "404", "b"), ("a", "b", "503"))
    disagree = ("x", "y", "z")
    for part in ("train", "test"):
        with (source / f"faceexp-comparison-data-{part}-public.csv").open("w", newline="") as file:
            for names, answers in [*((row, (2, 2, 2)) for row in rows), (disagree, (1, 2, 3))]:
                row = [cell for name in names for cell in (f"{web}/{name}.jpg", 0.1, 0.9, 0.1, 0.9)]
                votes = [cell for i, answer in enumerate(answers) for cell in (f"annotator{i}", answer)]
                csv.writer(file).writerow([*row, "ONE_CLASS_TRIPLET", *votes])
    options = {"download": True, "download_timeout": 2.0, "download_retries": 0, "crop_size": 16}
    target, done = prepare("fec", source, tmp_path / "out", workers=1, quiet=True, **options)
    assert done
    card = json.loads((target / "card.json").read_text())
    assert card["items_left_out"] == {
        "a picture's link is dead (HTTP 404)": 2,
        "a picture is not in the cache (dead link or not downloaded)": 2,
        "the annotators disagree": 2,
    }
    assert {split: part["counts"]["records"] for split, part in card["splits"].items()} == {"train": 1, "dev": 1}
    assert not Web.asked["/x.jpg"]  # it belongs to no triplet that is kept
    assert "download" not in card["arguments"]
    assert prepare("fec", source, tmp_path / "out", workers=1, quiet=True, crop_size=16) == (target, False)


def test_one_deadline_holds_for_headers_chunks_and_content(tmp_path, web):
    files = wanted(web, tmp_path, "drip header.jpg", "drip chunk.jpg", "drip.jpg")
    began = time.monotonic()
    tally = download.fetch_all(files, tmp_path, Limits(workers=4, timeout=0.4, retries=0), quiet=True)
    assert tally == {"failed: too slow": 3}
    assert time.monotonic() - began < 3


def test_redirects_lead_to_the_same_host_or_to_public_ones_over_http(tmp_path, web):
    elsewhere = web.replace("127.0.0.1", "localhost")
    targets = (f"{web}/good.jpg", f"{elsewhere}/good.jpg", "file:///etc/hostname", "ftp://example.org/a.jpg")
    files = wanted(web, tmp_path, *(f"to/{target}" for target in targets))
    tally = download.fetch_all(files, tmp_path, QUICK, quiet=True)
    assert tally == {"fetched": 1, "dead: HTTP 302": 1, "dead: it leads elsewhere": 2}  # urllib itself refuses file://
