"""`loopledger prove`: a campaign in a scratch directory, and what came of it."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from projections.cli._errors import CliError, ExitCode
from projections.cli._progress import status_line
from projections.cli._text import clean, count
from projections.cli.prove._campaign import Campaign, Figures
from projections.cli.prove._disk import IN_MEMORY, Disk, look_at

__all__ = ["prove"]


def prove(*, seconds: float, directory: str, as_json: bool) -> ExitCode:
    """Run a campaign and print its figures.

    Args:
        seconds: for how long to write and kill.
        directory: where the scratch directory is made; nothing else there is touched.
        as_json: print one object.

    Raises:
        CliError: nothing can be written there, or the time was too short for anything to happen.
    """
    try:
        scratch = Path(tempfile.mkdtemp(prefix="loopledger-prove-", dir=directory))
    except OSError as error:
        raise CliError(
            "E-PATH",
            f"{directory}: {error.strerror}; no scratch directory can be made there",
            exit_code=ExitCode.NOT_FOUND,
            next_step="name a directory on the disk you want to try: --dir DIR",
        ) from error
    keep = False
    try:
        disk = look_at(scratch)
        campaign = Campaign(scratch)
        with status_line() as tell:
            campaign.run(seconds, lambda figures: tell(_in_short(figures)))
        keep = bool(campaign.faults)
        if not keep:
            _refuse_nothing(campaign.figures)
    finally:
        if not keep:
            shutil.rmtree(scratch)
    if as_json:
        kept = str(scratch) if keep else None
        _print_json(campaign, disk, kept)
    else:
        _print_figures(campaign, disk)
        if keep:
            print(f"The logs are kept in {clean(str(scratch))}")
    return ExitCode.NOT_SOUND if keep else ExitCode.OK


def _refuse_nothing(figures: Figures) -> None:
    if figures.acknowledged and figures.kills:
        return
    appends, kills = count(figures.acknowledged, "append"), count(figures.kills, "kill")
    raise CliError(
        "E-USAGE",
        f"{appends} acknowledged and {kills} prove nothing",
        exit_code=ExitCode.USAGE,
        next_step="give it more time: --seconds 60",
    )


def _in_short(figures: Figures) -> str:
    return (
        f"{figures.seconds:.0f} s, {count(figures.kills, 'kill')}, "
        f"{figures.acknowledged} appends acknowledged and checked in rounds, {figures.lost} lost"
    )


def _print_json(campaign: Campaign, disk: Disk, kept: str | None) -> None:
    answer: dict[str, Any] = {"schema": "loopledger.proof/1"}
    answer |= msgspec.to_builtins(campaign.figures)
    answer |= {"disk": msgspec.to_builtins(disk), "faults": campaign.faults, "directory": kept}
    print(json.dumps(answer))


def _print_figures(campaign: Campaign, disk: Disk) -> None:
    figures = campaign.figures
    print(f"{figures.seconds:.1f} s on {clean(disk.file_system)} ({clean(disk.device)})")
    print(f"  a sync takes {disk.sync_p50_ms:.2f} ms, p99 {disk.sync_p99_ms:.2f} ms")
    if disk.file_system in IN_MEMORY:
        print("  this is memory: kills are real here, and syncs are not")
    print(
        f"  {count(figures.acknowledged, 'append')} acknowledged, {count(figures.events, 'event')}"
    )
    print(f"  {count(figures.recorded, 'append')} recorded, in {count(figures.commits, 'commit')}")
    print(
        f"  {count(figures.kills, 'kill')}, {count(figures.reopenings, 'reopening')}, "
        f"{count(figures.torn_tails, 'torn tail')} recovered"
    )
    print(f"  {figures.cuts} copies cut behind what was acknowledged, as by a power cut")
    print(f"  acknowledged and lost: {figures.lost}")
    for fault in campaign.faults:
        print(f"BROKEN {clean(fault)}")
