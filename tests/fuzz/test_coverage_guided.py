"""Every target for its share of the time that `make prove` gives, led by what the code does."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.fuzz._targets import TARGETS

_SECONDS: Final = float(os.environ.get("LOOPLEDGER_PROVE_SECONDS", "0"))
_SHARE_OF_ROW: Final = 0.75  # the rest is for the other tests of this row
_SECONDS_MIN: Final = 2
_START_SECONDS: Final = 120.0  # to instrument what is imported, and to end
_DONE: Final = re.compile(r"^Done ([0-9]+) runs", re.MULTILINE)


@pytest.mark.skipif(not _SECONDS, reason="`make prove` says for how long")
@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None,
    reason="atheris is not installed; it has wheels for Linux on x86-64",
)
@pytest.mark.parametrize("name", TARGETS)
def test_no_input_that_leads_to_new_code_breaks_a_promise(
    name: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Only our own errors, whatever the input."""
    seconds = max(_SECONDS_MIN, round(_SECONDS * _SHARE_OF_ROW / len(TARGETS)))
    module = "tests.fuzz.atheris_fuzz"
    done = subprocess.run(
        [sys.executable, "-m", module, name, f"--seconds={seconds}", f"--artifacts={tmp_path}"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=seconds + _START_SECONDS,
    )
    report = done.stdout[-4_000:] + done.stderr[-8_000:]
    inputs = [path.name for path in tmp_path.glob("*-*") if path.is_file()]
    assert not done.returncode, f"{report}\nthe input: {tmp_path}/{inputs}"
    runs = _DONE.search(done.stderr)
    assert runs is not None, report
    record_property("cases", int(runs[1]))
