"""CRC-32, by the faster library where it is installed (the `fast` extra). Pure.

Both give the same values, so a log does not tell which of them wrote it.
"""

from __future__ import annotations

import zlib
from typing import Final, Protocol, cast

__all__ = ["crc32"]


class _Crc32(Protocol):
    def __call__(self, data: bytes | bytearray | memoryview, value: int = 0, /) -> int: ...


def _fastest() -> _Crc32:
    try:
        from isal import isal_zlib  # noqa: PLC0415 - an extra
    except ImportError:
        return zlib.crc32
    # Its stub gives the first parameter no type.
    return cast("_Crc32", isal_zlib.crc32)  # pyright: ignore[reportUnknownMemberType]


crc32: Final = _fastest()
