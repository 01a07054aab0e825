"""CRC-32, by the faster library where it is installed (the `fast` extra). Pure.

Both give the same values, so a log does not tell which of them wrote it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["crc32"]

if TYPE_CHECKING:
    from zlib import crc32
else:
    try:
        from isal.isal_zlib import crc32
    except ImportError:
        from zlib import crc32
