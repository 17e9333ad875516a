"""A file on a web server, read by ranges of bytes (RFC 9110, section 14).

Every answer is compared with what was asked for: the range and the length that it states, and the ETag or date, so that
a file that changes while it is read is noticed. Broken connections and answers of 5xx are tried again with growing
pauses; what has arrived is kept. Redirects lead to the same scheme alone. fsspec's own reader of web addresses compares
none of this, so it is not used here.
"""

from __future__ import annotations

import base64
import http.client
import logging
import re
import socket
import ssl
import time
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from registry.errors import NotFoundError, SourceError, WeightsError
from registry.spelling import without_secrets
from registry.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["DELAYS", "BrokenError", "HttpFile"]

log = logging.getLogger(__name__)

DELAYS = (0.5, 1.0, 2.0, 4.0)
"""Pauses in seconds before a request is made again."""

_MOST_BREAKS: Final = 20  # of one read, however much each attempt brings
_LONGEST_WAIT: Final = 30.0  # seconds that a server may ask for
_TIMEOUT: Final = 30.0  # seconds without a byte
_MOST_REDIRECTS: Final = 5
_PIECE: Final = 1 << 20
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", re.ASCII)
_BUSY = (429, 500, 502, 503, 504)
_MOVED = (301, 302, 303, 307, 308)
_OFFLINE = "check the network and the address; or download the file elsewhere and give its path"


class BrokenError(Exception):
    """A connection that broke, or a server that is busy: worth another attempt. ``wait``: seconds that it asks for."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class _Mark(NamedTuple):
    """What tells one state of a file from another."""

    etag: str
    modified: str
    size: int | None


class HttpFile:
    """A file of a web server. ``size`` is known after `start`; None while it is not.

    Parameters
    ----------
    address
        With user and query, which are never shown.
    shown
        The address in messages.
    headers
        More headers for the host of the address; a redirect to another host does not take them along.
    """

    def __init__(self, address: str, shown: str, headers: Mapping[str, str] | None = None) -> None:
        self.shown = shown
        self.size: int | None = None
        self.received = 0
        self._origin = address
        self._at = address
        self._headers = dict(headers or {})
        self._connection: http.client.HTTPConnection | None = None
        self._response: http.client.HTTPResponse | None = None
        self._connected = ""
        self._mark: _Mark | None = None

    def start(self, count: int) -> tuple[bool, Iterator[bytes]]:
        """The first bytes, at most ``count``; or, of a server without ranges, all of the file.

        Returns
        -------
        bool, iterator of bytes
            Whether the server reads by ranges, and the bytes. ``size`` is set; None where the server does not say.

        Raises
        ------
        NotFoundError
            There is no such file.
        SourceError
            The server cannot be reached, refuses, or contradicts itself.
        """
        attempt = 0
        while True:
            try:
                response = self._get(0, count)
                break
            except BrokenError as error:
                attempt = self._pause(attempt, error)
        if response.status == 416:
            raise WeightsError(f"{self.shown} is empty", "save it again")
        if response.status == 200:
            self._mark = self._marked(response, self._length(response))
            self.size = self._mark.size
            return False, self._body(response, self.size)
        begin, end, total = self._range(response)
        if begin != 0 or end > min(count, total):
            self._refuse(f"states the range {begin}-{end - 1} of {total} where 0-{count - 1} was asked for")
        self._mark = self._marked(response, total)
        self.size = total
        return True, self._body(response, end)

    def pieces(self, start: int, stop: int) -> Iterator[bytes]:
        """Bytes ``start`` to ``stop`` in pieces, in order.

        Raises
        ------
        WeightsError
            The file has changed since `start`.
        SourceError
            As `start`.
        """
        attempt = breaks = 0
        while start < stop:
            try:
                response = self._get(start, stop)
                self._same(response)
                if response.status == 200:
                    self._refuse("no longer reads by ranges, though it did before")
                begin, end, _ = self._range(response)
                if begin != start or end > stop:
                    self._refuse(f"states the range {begin}-{end - 1} where {start}-{stop - 1} was asked for")
                for piece in self._body(response, end - begin):
                    attempt = 0
                    start += len(piece)
                    yield piece
            except BrokenError as error:
                breaks += 1
                if breaks > _MOST_BREAKS:
                    raise self._given_up(error) from error
                attempt = self._pause(attempt, error)

    def close(self) -> None:
        """Close the connection."""
        if self._response is not None:  # which may hold the socket
            self._response.close()
        if self._connection is not None:
            self._connection.close()
        self._response = self._connection = None

    def _pause(self, attempt: int, error: BrokenError) -> int:
        self.close()
        if attempt >= len(DELAYS):
            raise self._given_up(error) from error
        log.info("%s: %s; trying again", self.shown, error)
        time.sleep(max(DELAYS[attempt], min(error.wait, _LONGEST_WAIT)))
        return attempt + 1

    def _given_up(self, error: BrokenError) -> SourceError:
        return SourceError(f"{self.shown} could not be read: {error}", _OFFLINE)

    def _refuse(self, what: str) -> NoReturn:
        self.close()
        raise SourceError(
            f"the server of {self.shown} {what}", "download the file with another program and give its path"
        )

    def _get(self, start: int, stop: int) -> http.client.HTTPResponse:
        """An answer of 200, 206 or 416, after redirects; raises for all others."""
        elsewhere = self._at != self._origin
        for _ in range(_MOST_REDIRECTS + 1):
            response = self._asked(start, stop)
            status = response.status
            if status in (200, 206) or (status == 416 and self._mark is None):
                if response.getheader("Content-Encoding", "identity").lower() not in ("", "identity"):
                    self._refuse("sends it compressed, so that ranges of it are not those of the file")
                return response
            if status in _MOVED:
                self._follow(response)
                continue
            self.close()
            if status in (412, 416):
                raise self._changed()
            if status in _BUSY:
                wait = response.getheader("Retry-After", "")
                raise BrokenError(f"the server answers with status {status}", float(wait) if wait.isdecimal() else 0.0)
            if elsewhere and status in (401, 403, 404, 410):  # the address behind a redirect may have expired
                self._at, elsewhere = self._origin, False
                continue
            if status in (404, 410):
                raise NotFoundError(f"there is no file {self.shown}", "check the address")
            if status in (401, 403, 407):
                raise SourceError(
                    f"the server refuses access to {self.shown} (status {status})",
                    "check the address and your access to it; signed addresses expire",
                )
            self._refuse(f"answers with status {status}")
        return self._refuse(f"redirects more than {_MOST_REDIRECTS} times")

    def _follow(self, response: http.client.HTTPResponse) -> None:
        self.close()
        try:
            to = urljoin(self._at, response.getheader("Location", "").strip())
            parts = urlsplit(to)
            valid = to.isascii() and to.isprintable() and " " not in to and len(to) <= 16_000 and parts.port != 0
        except ValueError:  # of the port, or of an address of IPv6
            valid = False
        if not valid:
            self._refuse("redirects to what is no address")
        if parts.scheme != urlsplit(self._origin).scheme or not parts.hostname:
            self._refuse(f"redirects to {without_secrets(to)[:200]}, which is another kind of address; give that one")
        self._at = to

    def _asked(self, start: int, stop: int) -> http.client.HTTPResponse:
        headers = {
            "Accept-Encoding": "identity",
            "Range": f"bytes={start}-{stop - 1}",
            "User-Agent": f"archreg/{__version__}",
        }
        if self._mark is not None and self._mark.etag.startswith('"'):  # a weak one never matches
            headers["If-Match"] = self._mark.etag
        parts, origin = urlsplit(self._at), urlsplit(self._origin)
        if (parts.scheme, parts.hostname, parts.port) == (origin.scheme, origin.hostname, origin.port):
            headers |= self._headers
            if user := origin.netloc.rpartition("@")[0]:
                headers["Authorization"] = _basic(user)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        fresh = self._connection is None
        try:
            connection, whole = self._connect()
            connection.request("GET", f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{path}" if whole else path,
                               headers=headers)  # fmt: skip
            self._response = connection.getresponse()
        except ssl.SSLCertVerificationError as error:
            self.close()
            raise SourceError(
                f"the certificate of {parts.hostname} is not valid: {error.verify_message}",
                "check the address; SSL_CERT_FILE names a file of further certificates",
            ) from error
        except socket.gaierror as error:
            self.close()
            raise SourceError(f"the host {parts.hostname} of {self.shown} cannot be found", _OFFLINE) from error
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if not fresh:  # the server closed a connection that was kept
                return self._asked(start, stop)
            raise BrokenError(_reason(error)) from error
        return self._response

    def _connect(self) -> tuple[http.client.HTTPConnection, bool]:
        """The connection, and whether it is a proxy's, which takes whole addresses."""
        parts = urlsplit(self._at)
        host, port, secure = parts.hostname or "", parts.port, parts.scheme == "https"
        proxy = "" if proxy_bypass(host) else getproxies().get(parts.scheme, "")
        key = f"{parts.scheme}://{host}:{port}"
        if self._connection is not None and self._connected == key:
            return self._connection, bool(proxy) and not secure
        self.close()
        made: http.client.HTTPConnection
        via = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        to = (via.hostname or "", via.port or 3128) if proxy else (host, port)
        if secure:
            made = http.client.HTTPSConnection(*to, timeout=_TIMEOUT, context=ssl.create_default_context())
        else:
            made = http.client.HTTPConnection(*to, timeout=_TIMEOUT)
        if proxy and secure:
            user = via.netloc.rpartition("@")[0]
            made.set_tunnel(host, port, {"Proxy-Authorization": _basic(user)} if user else {})
        self._connection, self._connected = made, key
        return made, bool(proxy) and not secure

    def _body(self, response: http.client.HTTPResponse, count: int | None) -> Iterator[bytes]:
        """The bytes of an answer; ``count`` is how many it must be, None where the server does not say."""
        stated = self._length(response)
        if stated is not None and count is not None and stated != count:
            self._refuse(f"states {stated} bytes for a range of {count}")
        left = count
        while left is None or left > 0:
            try:
                piece = response.read(_PIECE if left is None else min(left, _PIECE))
            except (OSError, http.client.HTTPException) as error:
                raise BrokenError(_reason(error)) from error
            if not piece:
                if left is None:
                    break
                raise BrokenError(f"the connection broke off with {left} bytes missing")
            self.received += len(piece)
            left = None if left is None else left - len(piece)
            yield piece
        if not response.isclosed():  # more follows than was asked for, or the end of a body without a length
            self.close()

    def _length(self, response: http.client.HTTPResponse) -> int | None:
        said = response.getheader("Content-Length", "")
        return int(said) if said.isascii() and said.isdecimal() and len(said) <= 18 else None

    def _range(self, response: http.client.HTTPResponse) -> tuple[int, int, int]:
        """Start, end and total of an answer of 206."""
        said = response.getheader("Content-Range", "").strip()
        match = _RANGE.fullmatch(said)
        if match is None:
            self._refuse(f"states the range {said[:60]!r}, which says no start, end and length")
        begin, last, total = (int(number) for number in match.groups())
        if not begin <= last < total:
            self._refuse(f"states the range {begin}-{last} of a file of {total} bytes")
        return begin, last + 1, total

    def _marked(self, response: http.client.HTTPResponse, size: int | None) -> _Mark:
        return _Mark(response.getheader("ETag", ""), response.getheader("Last-Modified", ""), size)

    def _same(self, response: http.client.HTTPResponse) -> None:
        """Raise if the file is not the one that was begun."""
        size = self._range(response)[2] if response.status == 206 else self._length(response)
        now, then = self._marked(response, size), self._mark
        if then is None or (now.etag, now.size) != (then.etag, then.size) or (not now.etag and now != then):
            self.close()
            raise self._changed()

    def _changed(self) -> WeightsError:
        return WeightsError(f"{self.shown} changed while it was read", "read it again when it is complete")


def _basic(user: str) -> str:
    return "Basic " + base64.b64encode(unquote(user).encode()).decode()


def _reason(error: Exception) -> str:
    """Why a connection failed, in a few words and without addresses."""
    if isinstance(error, TimeoutError):
        return f"no answer for {_TIMEOUT:.0f} seconds"
    if isinstance(error, http.client.IncompleteRead | ConnectionResetError | http.client.RemoteDisconnected):
        return "the connection broke off"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return type(error).__name__
