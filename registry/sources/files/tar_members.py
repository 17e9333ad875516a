"""Members of an uncompressed tar archive, which are read where they lie."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from registry.errors import WeightsError
from registry.sources.files.archive import DAMAGED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from registry.sources.files.byte_source import ByteSource

__all__ = ["Member", "is_tar", "tar_headers", "tar_members"]

_BLOCK = 512
_MAX_MEMBERS = 10_000


class Member(NamedTuple):
    """What the header of a member says: its name without a leading ``./``, and the position and size of its data.

    ``size``: -1 where the header has no number. ``is_file``: False of links, folders and the like.
    """

    name: str
    start: int
    size: int
    is_file: bool


def is_tar(head: bytes) -> bool:
    """Whether a file begins with a tar header: one that says ``ustar``, or an older one, by its checksum."""
    if head[257:262] == b"ustar":
        return True
    if len(head) < _BLOCK or not head[0]:
        return False
    try:
        stated = int(head[148:156].strip(b"\0 ") or b"x", 8)
    except ValueError:
        return False
    return stated == sum(head[:148]) + 8 * 32 + sum(head[156:_BLOCK])


def tar_headers(source: ByteSource, most: int) -> Iterator[Member]:
    """The first members, at most so many; none follows one without a size or one that reaches beyond the file."""
    at = 0
    for _ in range(most):
        if at + _BLOCK > source.size:
            return
        header = bytes(source.read_at(at, _BLOCK))
        if not header.strip(b"\0"):
            return
        name = header[:100].rstrip(b"\0").decode("utf-8", "replace").removeprefix("./")
        size = _size(header)
        yield Member(name, at + _BLOCK, size, header[156:157] in (b"0", b"\0"))
        if size < 0:
            return
        at += _BLOCK + -(-size // _BLOCK) * _BLOCK


def tar_members(source: ByteSource) -> dict[str, tuple[int, int]]:
    """Position and size of the files in an archive, of its first ten thousand members, by name.

    Raises
    ------
    WeightsError
        A member has no size or reaches beyond the archive, or two files have one name.
    """
    found: dict[str, tuple[int, int]] = {}
    for member in tar_headers(source, _MAX_MEMBERS):
        if member.size < 0:
            raise WeightsError(f"{source.name} has a member without a size, {member.name[:100]!r}", DAMAGED)
        if member.start + member.size > source.size:
            raise source.ends_early(member.start, member.size)
        if member.is_file and member.name in found:
            raise WeightsError(f"{source.name} has two members {member.name[:100]!r}", DAMAGED)
        if member.is_file:
            found[member.name] = (member.start, member.size)
    return found


def _size(header: bytes) -> int:
    """Bytes of a member: octal digits, or a binary number for more than 8 GiB; -1 if there is neither."""
    field = header[124:136]
    if field[0] & 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b"\0 ") or b"0"
    return int(digits, 8) if digits.isdigit() and not set(digits) & set(b"89") else -1
