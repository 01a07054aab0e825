"""What a power cut may leave of a disk: every combination of what each file and directory may be.

A file with unsynced writes is an axis of contents: an ordered prefix of the writes, the next one
torn at any byte; or any set of its dirty blocks with the new size, the others as they were, or
zeros, garbage, or stale bytes where the file had none. A directory with unsynced entries is an
axis of subsets of the changes. If there are few combinations, all of them are states; otherwise
states are drawn by seed, and run through the longest axis in turn.
"""

from __future__ import annotations

from itertools import combinations
from math import prod
from random import Random
from typing import Final

from tests.crash._disk import (
    BLOCK_BYTES,
    Directory,
    EntryChange,
    Inode,
    SimulatedDisk,
    Write,
    overwritten,
    with_blocks,
)

__all__ = ["CrashStates"]

_TORN_BYTES_MAX: Final = 400  # unsynced bytes up to which a write is torn at every one of them
_TORN_OFFSETS: Final = 40  # of longer ones
_BLOCKS_MAX: Final = 4  # dirty blocks up to which every subset is a state
_SUBSETS: Final = 16  # of more
_CHANGES_MAX: Final = 5
_CORNERS: Final = 4


class CrashStates:
    """The states that a power cut may leave of a disk as it is now.

    Args:
        disk: is not changed.
        seed: chooses where not everything can be enumerated.
        budget: how many states at most.
        stale: whether blocks that never arrived may hold older lines of the same file.
    """

    def __init__(self, disk: SimulatedDisk, *, seed: int, budget: int, stale: bool) -> None:
        self._disk = disk
        self._seed = seed
        random = Random(seed)
        self._contents: dict[int, list[bytes]] = {}
        self._entries: dict[int, list[dict[str, Inode | Directory]]] = {}
        self._visit(disk.top, random, stale=stale, budget=budget)
        self._axes = [
            *((key, len(contents)) for key, contents in self._contents.items()),
            *((key, len(entries)) for key, entries in self._entries.items()),
        ]
        self._total = prod(size for _, size in self._axes)
        self._longest = max(self._axes, key=lambda axis: axis[1], default=(0, 0))[0]
        self.is_exhaustive = self._total <= budget
        self.count = min(self._total, budget)

    def state(self, index: int) -> SimulatedDisk:
        """One of the `count` states, as the machine finds it when it starts again."""
        choice = self._all(index) if self.is_exhaustive else self._drawn(index)
        disk = SimulatedDisk(with_directory=False, seed=self._seed + index)
        disk.top = self._directory(self._disk.top, choice, {})
        return disk

    def _all(self, index: int) -> dict[int, int]:
        choice: dict[int, int] = {}
        for key, size in self._axes:
            index, choice[key] = divmod(index, size)
        return choice

    def _drawn(self, index: int) -> dict[int, int]:
        if index < _CORNERS:  # everything; all but the longest axis; nothing but that; nothing
            inner, outer = index % 2 - 1, index // 2 - 1
            return {key: (inner if key == self._longest else outer) for key, _ in self._axes}
        random = Random(self._seed + index)
        choice: dict[int, int] = {}
        for key, size in self._axes:
            luck = random.random()
            if key == self._longest:
                choice[key] = (index + self._seed) % size
            elif luck < 0.2:
                choice[key] = 0
            elif luck < 0.5:
                choice[key] = -1
            else:
                choice[key] = random.randrange(size)
        return choice

    def _visit(self, directory: Directory, random: Random, *, stale: bool, budget: int) -> None:
        if directory.pending:
            self._entries[id(directory)] = _entry_sets(directory, random)
        changed = [change.node for change in directory.pending]
        for node in (*directory.durable.values(), *changed):
            if isinstance(node, Directory):
                self._visit(node, random, stale=stale, budget=budget)
            elif node is not None and node.pending and id(node) not in self._contents:
                self._contents[id(node)] = _contents(node, random, stale=stale, budget=budget)

    def _directory(
        self, directory: Directory, choice: dict[int, int], twins: dict[int, Inode | Directory]
    ) -> Directory:
        entries = directory.durable
        if id(directory) in choice:
            entries = self._entries[id(directory)][choice[id(directory)]]
        twin = Directory()
        for name, node in entries.items():
            known = twins.get(id(node))
            if known is None:
                if isinstance(node, Directory):
                    known = self._directory(node, choice, twins)
                elif id(node) in choice:
                    known = Inode(node.number, self._contents[id(node)][choice[id(node)]])
                else:
                    known = Inode(node.number, node.durable)
                twins[id(node)] = known
            twin.durable[name] = twin.entries[name] = known
        return twin


def _entry_sets(directory: Directory, random: Random) -> list[dict[str, Inode | Directory]]:
    """What may stand in a directory: nothing of what is pending first, all of it last."""
    changes = directory.pending
    sets: list[tuple[EntryChange, ...]] = []
    if len(changes) <= _CHANGES_MAX:
        for count in range(len(changes) + 1):
            sets += combinations(changes, count)
    else:
        sets.append(())
        for _ in range(2**_CHANGES_MAX):
            sets.append(tuple(change for change in changes if random.random() < 0.5))
        sets.append(tuple(changes))
    results: list[dict[str, Inode | Directory]] = []
    for chosen in sets:
        entries = dict(directory.durable)
        for change in chosen:
            change.apply(entries)
        results.append(entries)
    return results


def _contents(inode: Inode, random: Random, *, stale: bool, budget: int) -> list[bytes]:
    """What a file may hold: nothing of what is pending first, all of it last.

    With many dirty blocks there are about as many of their subsets as the budget asks for.
    """
    contents = {inode.durable: None}
    base = inode.durable
    sizes = {len(base)}
    torn_at = _torn_offsets(inode.pending, random)
    passed = 0
    for offset, data in inode.pending:
        if data is None:
            base = base[:offset].ljust(offset, b"\0")
        else:
            end = passed + len(data)
            for torn in range(passed + 1, end) if torn_at is None else sorted(torn_at):
                if not passed < torn < end:
                    continue
                contents[overwritten(base, offset, data[: torn - passed])] = None
            passed = end
            base = overwritten(base, offset, data)
        contents[base] = None
        sizes.add(len(base))
    for content in _block_subsets(inode, sizes, random, stale=stale, budget=budget):
        contents[content] = None
    # With blocks lost to an error before, what the writes make of the medium is `base`.
    contents.pop(base, None)
    contents[base] = None
    return list(contents)


def _torn_offsets(pending: list[Write], random: Random) -> set[int] | None:
    """At which of the unsynced bytes a write is torn; None for all."""
    total = sum(len(data) for _, data in pending if data)
    if total <= _TORN_BYTES_MAX:
        return None
    offsets = {random.randrange(total) for _ in range(_TORN_OFFSETS)}
    end = 0
    for _, data in pending:
        if data:
            offsets |= {end + 1, end + len(data) - 1}
            end += len(data)
    if len(offsets) > 2 * _TORN_OFFSETS:
        offsets = set(random.sample(sorted(offsets), 2 * _TORN_OFFSETS))
    return offsets


def _block_subsets(
    inode: Inode, sizes: set[int], random: Random, *, stale: bool, budget: int
) -> list[bytes]:
    dirty = [block for block in inode.dirty() if block not in inode.lost]
    subsets: list[list[int]] = []
    if len(dirty) <= _BLOCKS_MAX:
        for count in range(len(dirty) + 1):
            subsets += map(list, combinations(dirty, count))
    else:
        count = min(_SUBSETS, budget, len(dirty))
        for _ in range(count):
            share = random.choice((0.2, 0.5, 0.8))
            subsets.append([block for block in dirty if random.random() < share])
        for missing in random.sample(dirty, count):
            subsets.append([block for block in dirty if block != missing])
    final = len(inode.content)
    contents: list[bytes] = []
    for subset in subsets:
        others = sorted(sizes - {final, len(inode.durable)})
        for size in (final, *random.sample(others, min(1, len(others)))):
            contents += [
                with_blocks(base, inode.content, subset, size=size)
                for base in _filled(inode, size, random, stale=stale)
            ]
    return contents


def _filled(inode: Inode, size: int, random: Random, *, stale: bool) -> list[bytes]:
    """The durable content, made longer by what the medium may hold there."""
    durable = inode.durable
    missing = size - len(durable)
    if missing <= 0:
        return [durable]
    bases = [durable.ljust(size, b"\0"), durable + random.randbytes(missing)]
    if stale and durable:
        start = random.randrange(0, len(durable), BLOCK_BYTES)
        again = durable[start:] * (missing // (len(durable) - start) + 1)
        bases.append(durable + again[:missing])
    return bases
