"""What inputs begin as: files as the engine wrote them, and what a hostile one is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import eventstore as es
from tests.fuzz._derived_files import FORGED, PLAIN, index_seeds, snapshot_files
from tests.fuzz._parts import joined
from tests.recovery._logs import (
    LOCK,
    append,
    append_raw,
    appended,
    content,
    foreign,
    iterations,
    opened,
    request,
    segments,
)

__all__ = [
    "FOREIGN",
    "HOSTILE",
    "LOG",
    "LOOP_LOG",
    "OTHER_LOG",
    "RECORD",
    "RUN",
    "SAVED",
    "SAVED_BODIES",
    "SEEDS",
    "SEGMENTS",
    "TIMESTAMP",
]

_DIGEST_BYTES: Final = 32


def _written(*, segment_bytes_max: int | None = None, others: bool = True) -> es.MemoryFiles:
    """A log of synced and unsynced commits, keys, and lines of another writer."""
    files = es.MemoryFiles()
    with opened(files, segment_bytes_max=segment_bytes_max) as committer:
        append(committer, request("main", *iterations(1, 2), key="k"))
        append(committer, request("otter", *iterations(3, 4, 5)), request("main", *iterations(6)))
        append(committer, request("main", *iterations(7), synced=False))
        append(committer, request("otter", *iterations(8, 9), synced=False))
        append(committer, request("otter", *iterations(10)))
    if others:
        append_raw(files, foreign(11) + b"\nnoise\n" + foreign(12) + b"\n")
        appended(files, request("main", *iterations(13)), request("heron", *iterations(14)))
    return files


_FILES: Final = _written()
LOG: Final = content(_FILES)
RECORD: Final = content(_FILES, LOCK)
OTHER_LOG: Final = content(_written(others=False))
_SEALED: Final = _written(segment_bytes_max=400, others=False)
SEGMENTS: Final = [(name.encode(), content(_SEALED, name)) for name in segments(_SEALED)]


RUN: Final = (
    b'{"run_id":"2026-11-21_00-07-26.254Z","started_at_utc":"2026-11-21T00:07:26Z","command":"c",'
    b'"resume":false,"repo_root":"/","ralph_version":"1","pid":3,"resumes":[]}'
)
LOOP_LOG: Final = (
    b"1 ts=2026-11-21T00:07:26.254+00:00 phase=Commit Message effect=Push event=Pushed ms=41\n"
    b"2 ts=2026-11-21T00:07:27.254+00:00 phase=R effect=C event=D extra=[A,B] ctx=i=2,r=1 ms=7\n"
)


FOREIGN: Final = foreign(5)[:-1] + b',"data":{"a":[1,"\\u00e9",-0]},"x":[{}]}'
TIMESTAMP: Final = b"2026-11-21T00:00:03.255970Z"
SAVED: Final = [content for _, content in sorted(snapshot_files().items())]
SAVED_BODIES: Final = [saved[:-_DIGEST_BYTES] for saved in SAVED]
"""Without their checksums."""

SEEDS: Final[Mapping[str, Sequence[bytes]]] = {
    "log": (joined(LOG, RECORD), LOG, OTHER_LOG),
    "segments": (joined(*(name + b"\n" + text for name, text in SEGMENTS[-3:])),),
    "lock_record": (RECORD,),
    "foreign_line": (FOREIGN,),
    "run_files": (joined(RUN, LOOP_LOG),),
    "timestamp": (TIMESTAMP,),
    "index": index_seeds(),
    "snapshot": (PLAIN + joined(*SAVED), FORGED + joined(*SAVED_BODIES)),
}
"""By target: what a fuzzer begins with."""

HOSTILE: Final = {
    "NULs": b"\0",
    "CRs": b"\r",
    "LFs": b"\n",
    "backslashes": b"\\",
    "digits": b"9",
    "open brackets": b"[",
    "objects": b'{"":',
    "empty arrays": b"[],",
    "repeated members": b'"a":0,',
    "byte order marks": b"\xef\xbb\xbf",
    "U+2028": b"\xe2\x80\xa8",
    "half suffixes": b',"crc":"',
    "tiny lines": b"{}\n",
    "records": foreign(1) + b"\n",
    "blanks": b" ",
    "milliseconds": b" ms=",
    "percents": b"%41",
    "quotes": b'"',
    "escapes": b"\\u00e9",
    "lines of a bracket": b"[\n",
    "lines of nine brackets": b"[" * 9 + b"\n",
    "lines of an object's beginning": b'{"a":{"b":\n',
    "lines of a repeated member": b'{"":0,"":0}\n',
    "lines of an array": b'["","",0]\n',
    "longer lines of an array": b'["",{"kind":"loop_started"}]\n',
    "claims": b'{"crc":1}\n',
    "claims in escapes": b'{"\\u0063rc":0}\n',
    "bad lines": b'{"a":1,"crc":"0123456789abcdef"}\n',
    "lines that are no UTF-8": b"\xff\n",
}
"""Pieces that cost most when an input holds nothing else."""
