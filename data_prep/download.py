"""Downloads pictures into a local cache: a few at a time, with retries, resumable, with a tally of dead links."""

import collections
import concurrent.futures
import dataclasses
import http.client
import itertools
import json
import pathlib
import time
import urllib.error
import urllib.parse
from collections.abc import Iterable, Mapping

import tqdm

from media import images, web
from media.errors import BadItem, UserError
from media.files import write_atomically

DEAD_LINKS = "dead_links.json"
USER_AGENT = "avemo data_prep (research; fetches each picture once)"
MAX_BYTES = 64 << 20  # anything larger is not a picture
RETRIED = (408, 425, 429)  # HTTP statuses that ask the client to try again, besides 5xx


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits on connections, time and attempts.

    Attributes:
      workers: simultaneous connections.
      timeout: for one whole attempt, seconds.
      retries: further attempts after a temporary failure.
      wait: before the first retry, seconds; doubled each time.
    """

    workers: int = 16
    timeout: float = 30.0
    retries: int = 3
    wait: float = 1.0


class _Failure(Exception):
    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


class _Dead(_Failure):
    """A permanent failure: no retry will get the picture."""


class _Again(_Failure):
    """A temporary failure."""


def _attempt(url: str, timeout: float) -> bytes:
    """Fetches the bytes of a picture; raises `_Dead` or `_Again` with the reason."""
    # Listed addresses contain blanks, quotes and accented letters, which HTTP does not allow unquoted.
    safe = urllib.parse.quote(url, safe=":/?#[]@!$&'()*+,;=%~")
    try:
        data = web.fetch(safe, limit=MAX_BYTES + 1, seconds=timeout, headers={"User-Agent": USER_AGENT})
    except urllib.error.HTTPError as error:
        again = error.code >= 500 or error.code in RETRIED
        raise (_Again if again else _Dead)(f"HTTP {error.code}") from error
    except TimeoutError as error:
        raise _Again("too slow") from error
    except web.Refused as error:
        raise _Dead("it leads elsewhere") from error
    except web.Incomplete as error:
        raise _Again("cut short") from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, web.Refused):
            raise _Dead("it leads elsewhere") from error
        slow = isinstance(error.reason, TimeoutError)
        raise _Again("too slow" if slow else "no connection") from error
    except (http.client.InvalidURL, ValueError) as error:
        raise _Dead("no address") from error
    except (OSError, http.client.HTTPException) as error:
        raise _Again("connection lost") from error
    if len(data) > MAX_BYTES:
        raise _Dead("larger than a picture")
    try:
        images.decode(data, url)
    except BadItem as error:
        raise _Dead("no picture") from error  # dead links often return a web page instead
    return data


def _fetch(url: str, path: pathlib.Path, limits: Limits) -> tuple[str, bool]:
    """Fetches one picture to `path`; returns ("", False), or the reason it failed and whether that is permanent."""
    reason = ""
    for number in range(limits.retries + 1):
        if number:
            time.sleep(limits.wait * 2 ** (number - 1))
        try:
            data = _attempt(url, limits.timeout)
        except _Dead as error:
            return error.reason, True
        except _Again as error:
            reason = error.reason
            continue
        write_atomically(path, data)
        return "", False
    return reason, False


def dead_links(cache: pathlib.Path) -> dict[str, str]:
    """Returns the addresses that earlier runs found dead, with the reason; empty before the first run."""
    try:
        return json.loads((cache / DEAD_LINKS).read_text())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise UserError(
            f"{cache / DEAD_LINKS} cannot be read ({error}): remove it, and the links are tried again."
        ) from error


def fetch_all(
    wanted: Mapping[str, pathlib.Path], cache: pathlib.Path, limits: Limits, quiet: bool = False
) -> dict[str, int]:
    """Fetches the pictures that are missing. A second run continues and skips dead links.

    Args:
      wanted: for each address its file in `cache`.
      cache: folder of the pictures; its `dead_links.json` lists the dead addresses.
      limits: on connections, time and attempts.
      quiet: no progress bar.

    Returns:
      The number of pictures that were there, that were fetched, and that were dead ("dead: HTTP 404") or failed
      ("failed: HTTP 503") for each reason. The next run tries failed ones again.

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
    """Yields (address, result of `_fetch`) as they finish. Only a few are queued, so that Ctrl-C takes effect soon."""
    urls = iter(urls)
    running: dict[concurrent.futures.Future[tuple[str, bool]], str] = {}
    while True:
        for url in itertools.islice(urls, 2 * limits.workers - len(running)):
            running[pool.submit(_fetch, url, wanted[url], limits)] = url
        if not running:
            return
        finished, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
        for future in finished:
            yield running.pop(future), future.result()


def _write(cache: pathlib.Path, dead: Mapping[str, str]) -> None:
    text = json.dumps(dict(sorted(dead.items())), indent=0, ensure_ascii=False) + "\n"
    write_atomically(cache / DEAD_LINKS, text)
