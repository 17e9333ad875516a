"""Addresses of remote files: their parts, what of them is secret, and the addresses of files beside them.

An address is shown and stored without its user, password, query and fragment: signed addresses carry their signature in
the query. `split` takes these off; a `ModelRef` carries the whole address in ``access``, which is neither shown nor
stored.

Readers of files handle the names of companions as paths. ``Path("https://host/a/x.json")`` is ``https:/host/a/x.json``,
with one slash; `resolve` finds the address that such a path means. It must be one that is open, or lie below the folder
of one: so what a file says never leads to another host or folder.
"""

from __future__ import annotations

import re
from pathlib import PurePath, PurePosixPath
from typing import NamedTuple, Self
from urllib.parse import quote, unquote, urlsplit

from registry.errors import NotFoundError, UnsafeError
from registry.sources.files.byte_source import SCHEMES
from registry.spelling import without_secrets

__all__ = ["Opening", "file_name", "resolve", "split"]

_ADDRESS = re.compile(rf"({'|'.join(SCHEMES)})://(.*)", re.DOTALL)
_WEB = ("https", "http")
_LONGEST = 8000  # characters

_OPEN: list[str] = []  # addresses with their secrets


class Address(NamedTuple):
    """An address as it is shown, and with its user, password and query, as it is asked for."""

    shown: str
    whole: str


def split(address: str) -> Address:
    """The address of a remote file, checked.

    Raises
    ------
    NotFoundError
        It names no file, or no host or bucket, or is not valid text.
    UnsafeError
        An address of an object store holds a key.
    """
    match = _ADDRESS.fullmatch(address)
    told = without_secrets(address)[:200]
    remedy = "write https://HOST/PATH/FILE, s3://BUCKET/KEY or gs://BUCKET/KEY"
    if match is None or len(address) > _LONGEST or not address.isprintable() or re.search(r"\s", address):
        raise NotFoundError(f"{told!r} is no address of a file", remedy)
    scheme, rest = match.groups()
    host, _, path = rest.partition("/")
    if scheme not in _WEB:
        if "@" in host:
            raise UnsafeError(
                f"{told} holds a user or key", f"take it out: credentials for {scheme}: come from the environment"
            )
        key = rest if scheme == "memory" else path * bool(host)
        if not key.strip("/") or key.endswith("/"):
            raise NotFoundError(f"{told} names no file", remedy)
        return Address(address, address)
    try:
        parts = urlsplit(address)
        port = f":{parts.port}" if parts.port else ""
        name = parts.hostname or ""
        name = name if name.isascii() else name.encode("idna").decode()
    except (ValueError, UnicodeError) as error:
        raise NotFoundError(f"{told!r} is no address of a file: its host is not valid", remedy) from error
    if not name or not parts.path.strip("/") or parts.path.endswith("/"):
        raise NotFoundError(f"{told} names no file", remedy)
    host = f"[{name}]" if ":" in name else name
    path = quote(parts.path, safe="/%:@!$&'()*+,;=~-._")
    user, at, _ = parts.netloc.rpartition("@")
    query = quote(parts.query, safe="/%:@!$&'()*+,;=~-._?")
    shown = f"{scheme}://{host}{port}{path}"
    return Address(shown, f"{scheme}://{user}{at}{host}{port}{path}{'?' if query else ''}{query}")


def file_name(address: str) -> str:
    """The name of the file, as it would have on a disk."""
    name = address.rpartition("/")[2]
    return unquote(name) if address.startswith(_WEB) else name


class Opening:
    """Until it is closed, ``address`` and the files beside it can be opened by paths, with the same user and query."""

    def __init__(self, address: str) -> None:
        self._address: str | None = address
        _OPEN.append(address)

    def close(self) -> None:
        """Forget the address. Closing twice has no effect."""
        if self._address is not None:
            _OPEN.remove(self._address)
        self._address = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def resolve(target: str | PurePath) -> Address:
    """The address that a remote target means.

    Raises
    ------
    NotFoundError
        It is no address of a file.
    UnsafeError
        A path leads out of the folders of the addresses that are open.
    """
    text = str(target)
    if _ADDRESS.fullmatch(text):
        for whole in tuple(_OPEN):
            if split(whole).shown == text:
                return split(whole)
        return split(text)
    asked = PurePosixPath(text)
    for whole in reversed(tuple(_OPEN)):
        shown = split(whole).shown
        path = PurePosixPath(shown)
        if asked == path:
            return split(whole)
        if asked.is_relative_to(path.parent) and ".." not in asked.parts:
            return _beside(whole, asked.relative_to(path.parent).as_posix())
    raise UnsafeError(f"{text[:200]} leads out of the folder of the file that names it", "give the file itself")


def _beside(whole: str, name: str) -> Address:
    """The address of the file ``name`` in the folder of an address."""
    if not whole.startswith(_WEB):
        return split(f"{whole.rpartition('/')[0]}/{name}")
    before, mark, query = whole.partition("?")
    return split(f"{before.rpartition('/')[0]}/{quote(name, safe='/')}{mark}{query}")
