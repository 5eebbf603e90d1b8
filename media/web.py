"""Fetches a file over http(s) within one deadline, whatever the server does."""

import functools
import http.client
import ipaddress
import socket
import ssl
import threading
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

_BLOCK = 1 << 20


class Refused(OSError):
    """The address leads to a place that is not fetched from: another protocol, or no public address."""


class Incomplete(OSError):
    """The content broke off."""


class _Connections:
    """The connections of one fetch: they can be closed from outside, and later ones held to public addresses."""

    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []
        self.expired = self.public_only = False

    def opened(self, connection: http.client.HTTPConnection) -> None:
        found = connection.sock
        self.sockets.append(found)
        if self.expired:
            self.close()
        # A proxy makes the connection itself.
        if self.public_only and not urllib.request.getproxies():
            address = ipaddress.ip_address(found.getpeername()[0].partition("%")[0])
            if not (getattr(address, "ipv4_mapped", None) or address).is_global:
                connection.close()
                raise Refused(f"it leads to {address}, which is not a public address")

    def close(self) -> None:
        self.expired = True
        for found in self.sockets:
            try:
                found.shutdown(socket.SHUT_RDWR)
            except OSError:  # closed already
                continue


@functools.cache
def _trusted() -> ssl.SSLContext:
    """Whom https trusts. From Python 3.12 an opener without it reads the system's certificates anew, for http too."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _opener(connections: _Connections) -> urllib.request.OpenerDirector:
    class Plain(http.client.HTTPConnection):
        def connect(self) -> None:
            super().connect()
            connections.opened(self)

    class Secure(http.client.HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            connections.opened(self)

    class PlainHandler(urllib.request.HTTPHandler):
        def http_open(self, request: urllib.request.Request) -> Any:
            return self.do_open(Plain, request)

    class SecureHandler(urllib.request.HTTPSHandler):
        def https_open(self, request: urllib.request.Request) -> Any:
            return self.do_open(Secure, request, context=_trusted())

    class Redirects(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, request: urllib.request.Request, *rest: Any) -> urllib.request.Request | None:
            url = urllib.parse.urlsplit(rest[-1])
            if url.scheme not in ("http", "https"):
                rest[0].close()
                raise Refused(f"it leads to {url.scheme}://, not to http or https")
            connections.public_only |= url.hostname != urllib.parse.urlsplit(request.full_url).hostname
            return super().redirect_request(request, *rest)

    return urllib.request.build_opener(PlainHandler, SecureHandler(context=_trusted()), Redirects)


def fetch(url: str, *, limit: int, seconds: float, headers: dict[str, str] | None = None) -> bytes:
    """Fetches a file.

    A redirect may lead to http and https only, and to public addresses, or to the host it came from.

    Args:
      url: its http(s) address.
      limit: most bytes that are read; a longer file is cut after them.
      seconds: time for everything: names, connections, redirects, headers and content.
      headers: of the request.

    Raises:
      OSError, ValueError, http.client.HTTPException: it cannot be fetched, not in time, or only in part.
    """
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise ValueError("not an http(s) address")
    _trusted()
    connections = _Connections()
    found: list[bytes] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            request = urllib.request.Request(url, headers=headers or {})
            with _opener(connections).open(request, timeout=seconds) as answer:
                found.append(_content(answer, limit))
        except BaseException as error:  # for the caller, in another thread
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            failed.append(error)

    # A thread of its own, because the look-up of a name cannot be given a deadline.
    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    worker.join(seconds)
    if worker.is_alive():
        connections.close()
        raise TimeoutError(f"not finished after {seconds:.0f} s")
    if failed:
        raise failed[0]
    return found[0]


def _content(answer: Any, limit: int) -> bytes:
    blocks, size = [], 0
    while size < limit and (block := answer.read(min(_BLOCK, limit - size))):
        blocks.append(block)
        size += len(block)
    declared = answer.headers.get("Content-Length", "")
    if declared.isdigit() and size < min(int(declared), limit):
        raise Incomplete(f"it broke off after {size} of {declared} bytes")
    return b"".join(blocks)
