"""Pictures from the web into a local cache: a few at a time, retried, resumable, with a tally of what is dead."""

import collections
import concurrent.futures
import dataclasses
import http.client
import itertools
import json
import os
import pathlib
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping

import tqdm

from media import images
from media.errors import BadItem, UserError

DEAD_LINKS = "dead_links.json"
USER_AGENT = "avemo data_prep (research; fetches each picture once)"
MAX_BYTES = 64 << 20  # of one picture; what is larger is none
RETRIED = (408, 425, 429)  # beside 5xx: the server asks to come again
_BLOCK = 64 << 10


@dataclasses.dataclass(frozen=True)
class Limits:
    """workers: connections at a time; timeout: seconds for one whole attempt; retries: further attempts after a failure
    that may pass; wait: seconds before the first of them, doubled each time."""

    workers: int = 16
    timeout: float = 30.0
    retries: int = 3
    wait: float = 1.0


class _Dead(Exception):
    """The picture will not come, however often it is asked for."""


class _Again(Exception):
    """A failure that may pass."""


def _attempt(url: str, timeout: float) -> bytes:
    """The bytes of a picture. `_Dead` and `_Again` say why not."""
    deadline = time.monotonic() + timeout
    try:
        # Addresses in lists hold blanks, quotes and letters with accents that HTTP does not allow as they are.
        safe = urllib.parse.quote(url, safe=":/?#[]@!$&'()*+,;=%~")
        request = urllib.request.Request(safe, headers={"User-Agent": USER_AGENT})
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            expected, data = answer.headers.get("Content-Length"), bytearray()
            while block := answer.read1(_BLOCK):
                data += block
                if len(data) > MAX_BYTES:
                    raise _Dead("larger than a picture")
                if time.monotonic() > deadline:  # a server that drips a byte at a time never runs into the time-out
                    raise _Again("too slow")
    except urllib.error.HTTPError as error:
        again = error.code >= 500 or error.code in RETRIED
        raise (_Again if again else _Dead)(f"HTTP {error.code}") from error
    except TimeoutError as error:
        raise _Again("too slow") from error
    except urllib.error.URLError as error:
        slow = isinstance(error.reason, TimeoutError)
        raise _Again("too slow" if slow else "no connection") from error
    except (http.client.InvalidURL, ValueError) as error:
        raise _Dead("no address") from error
    except (OSError, http.client.HTTPException) as error:
        raise _Again("connection lost") from error
    if expected is not None and expected.isdigit() and len(data) < int(expected):
        raise _Again("cut short")
    try:
        images.decode(bytes(data), url)
    except BadItem as error:
        raise _Dead("no picture") from error  # dead links often answer with a page that says so
    return bytes(data)


def _fetch(url: str, path: pathlib.Path, limits: Limits) -> tuple[str, bool]:
    """Fetches one picture to `path`; returns ("", False), or why it did not come and whether it is dead for good."""
    reason = ""
    for number in range(limits.retries + 1):
        if number:
            time.sleep(limits.wait * 2 ** (number - 1))
        try:
            data = _attempt(url, limits.timeout)
        except _Dead as error:
            return str(error), True
        except _Again as error:
            reason = str(error)
            continue
        part = path.with_name(path.name + ".part")
        part.write_bytes(data)
        os.replace(part, path)  # a run that is killed leaves no half a picture under its name
        return "", False
    return reason, False


def dead_links(cache: pathlib.Path) -> dict[str, str]:
    """The addresses that former runs found dead, with the reason; empty where there was no run."""
    try:
        return json.loads((cache / DEAD_LINKS).read_text())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise UserError(
            f"{cache / DEAD_LINKS} cannot be read ({error}): remove it, the links are tried again."
        ) from error


def fetch_all(
    wanted: Mapping[str, pathlib.Path], cache: pathlib.Path, limits: Limits, quiet: bool = False
) -> dict[str, int]:
    """Fetches what is not there yet; run again it goes on, and asks no more for links that are dead.

    Args:
      wanted: the file of each address, in `cache`.
      cache: folder of the pictures; `dead_links.json` in it lists the dead addresses.
      limits: of connections, time and attempts.
      quiet: no progress bar.

    Returns:
      How many were there, fetched, and for each reason dead ("dead: HTTP 404") or failed ("failed: HTTP 503"; these
      are tried again by the next run).

    Raises:
      UserError: the cache cannot be written.
    """
    dead = dead_links(cache)
    tally: collections.Counter[str] = collections.Counter()
    waiting = []
    for url, path in wanted.items():
        if path.is_file():
            tally["there"] += 1
        elif url in dead:
            tally[f"dead: {dead[url]}"] += 1
        else:
            waiting.append(url)
    if not waiting:
        return dict(tally)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with (
            concurrent.futures.ThreadPoolExecutor(limits.workers) as pool,
            tqdm.tqdm(total=len(waiting), unit="picture", desc="download", disable=quiet, mininterval=0.5) as bar,
        ):
            try:
                for done, (url, (reason, final)) in enumerate(_bounded(pool, waiting, wanted, limits), start=1):
                    if final:
                        dead[url] = reason
                    tally["fetched" if not reason else f"{'dead' if final else 'failed'}: {reason}"] += 1
                    bar.update()
                    if done % 1000 == 0:
                        _write(cache, dead)
            finally:
                _write(cache, dead)
    except OSError as error:
        raise UserError(f"{cache} cannot be written: {error.strerror or error}.") from error
    return dict(tally)


def _bounded(
    pool: concurrent.futures.Executor, urls: Iterable[str], wanted: Mapping[str, pathlib.Path], limits: Limits
) -> Iterable[tuple[str, tuple[str, bool]]]:
    """(address, result of `_fetch`) as they come, a few handed out ahead: Ctrl-C is answered soon."""
    urls, running = iter(urls), {}
    while True:
        for url in itertools.islice(urls, 2 * limits.workers - len(running)):
            running[pool.submit(_fetch, url, wanted[url], limits)] = url
        if not running:
            return
        finished, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
        for future in finished:
            yield running.pop(future), future.result()


def _write(cache: pathlib.Path, dead: Mapping[str, str]) -> None:
    part = cache / (DEAD_LINKS + ".part")
    part.write_text(json.dumps(dict(sorted(dead.items())), indent=0, ensure_ascii=False) + "\n")
    os.replace(part, cache / DEAD_LINKS)
