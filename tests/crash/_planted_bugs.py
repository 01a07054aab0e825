"""The planted bugs: each drops, repeats, swaps or weakens one step that durability rests on."""

from __future__ import annotations

from typing import Final

from tests._mutants import Mutant

__all__ = ["MUTANTS"]


MUTANTS: Final = (
    Mutant(
        "a commit is acknowledged without its sync",
        "_commit.py",
        "            if synced:\n                self._files.fdatasync(tail.handle)\n",
        "",
    ),
    Mutant(
        "the sync comes before the write",
        "_commit.py",
        "            write_all(self._files, tail.handle, data)\n"
        "            if synced:\n"
        "                self._files.fdatasync(tail.handle)\n",
        "            if synced:\n"
        "                self._files.fdatasync(tail.handle)\n"
        "            write_all(self._files, tail.handle, data)\n",
    ),
    Mutant(
        "a failed sync is tried again",
        "_commit.py",
        "            if synced:\n                self._files.fdatasync(tail.handle)\n",
        "            if synced:\n"
        "                try:\n"
        "                    self._files.fdatasync(tail.handle)\n"
        "                except OSError:\n"
        "                    self._files.fdatasync(tail.handle)\n",
    ),
    Mutant(
        "an error does not poison",
        "_commit.py",
        '        self._poison = f"{type(error).__name__}: {error}"\n',
        "        self._poison = None\n"
        '        cause = f"{type(error).__name__}: {error}"\n'
        "        del cause\n",
    ),
    Mutant(
        "the size is not compared after the write",
        "_commit.py",
        "            self._check_size(end.offset)\n",
        "            pass\n",
    ),
    Mutant(
        "`writing` is not noted",
        "_commit.py",
        '        self._lock.write_record(tail.record("writing"))\n',
        "",
    ),
    Mutant(
        "`failed` is noted as `idle`",
        "_commit.py",
        'self._tail.record("failed")',
        'self._tail.record("idle")',
    ),
    Mutant(
        "`written` counts as durable",
        "_commit.py",
        "        if synced:\n            tail.mark_durable()\n        self._note_idle()\n",
        "        tail.mark_durable()\n        self._note_idle()\n",
    ),
    Mutant(
        "`durable` is not told",
        "_numbering.py",
        "    if durable_position != position:\n        numbered +=",
        "    if False:\n        numbered +=",
    ),
    Mutant(
        "sync() does not sync",
        "_commit.py",
        "            self._files.fdatasync(tail.handle)\n"
        "            self._check_size(tail.place.offset)\n",
        "            self._check_size(tail.place.offset)\n",
    ),
    Mutant(
        "a segment is sealed before what was only written is synced",
        "_commit.py",
        "                        self._sync()\n                        self._lock",
        "                        self._lock",
    ),
    Mutant(
        "a commit does not look what others did",
        "_commit.py",
        "                self._adopt()\n            except PlanOutdatedError",
        "                if not self._attached:\n"
        "                    self._adopt()\n"
        "            except PlanOutdatedError",
    ),
    Mutant(
        "what was adopted is not recorded",
        "_commit.py",
        "        if renewed is not None and renewed != record:\n"
        "            self._lock.write_record(renewed)\n",
        "",
    ),
    Mutant(
        "only versions known at the beginning are compared",
        "_admission.py",
        "            versions[stream] = version = version + count\n",
        "            version = version + count\n            versions.setdefault(stream, version)\n",
    ),
    Mutant(
        "the lock is not given back",
        "_commit.py",
        "                    self._lock.release()\n",
        "                    pass\n",
    ),
    Mutant(
        "a failed open keeps its handles",
        "_commit.py",
        "        except BaseException:  # raised again: a half-opened log keeps no handle\n"
        "            self.close()\n            raise\n",
        "        except ZeroDivisionError:\n            raise\n",
    ),
    Mutant(
        "keys are not looked up",
        "_admission.py",
        "            if earlier is not None:\n",
        "            if earlier is None:\n",
    ),
    Mutant(
        "a short write is taken for a whole one",
        "_repair.py",
        "        view = view[written:]\n",
        "        break\n",
    ),
    Mutant(
        "a write of nothing goes on for ever",
        "_repair.py",
        "        if written <= 0:",
        "        if written < 0:",
    ),
    Mutant(
        "torn bytes are not kept",
        "_repair.py",
        "        kept = _quarantine(files, names, handle, plan)\n",
        "",
    ),
    Mutant(
        "torn bytes are cut before they are kept",
        "_repair.py",
        "        kept = _quarantine(files, names, handle, plan)\n",
        "        data = files.pread(handle, plan.cut, plan.keep)\n"
        "        files.truncate(handle, plan.keep)\n"
        "        files.fsync(handle)\n"
        "        write_all(files, handle, data)\n"
        "        kept = _quarantine(files, names, handle, plan)\n",
    ),
    Mutant(
        "torn bytes are not cut",
        "_repair.py",
        "        files.truncate(handle, plan.keep)\n        files.fsync(handle)\n",
        "",
    ),
    Mutant(
        "the LF of a foreign record is not written",
        "_repair.py",
        "        write_all(files, handle, LF)\n        files.fsync(handle)\n",
        "        files.fsync(handle)\n",
    ),
    Mutant(
        "the LF of a foreign record is not synced",
        "_repair.py",
        "        write_all(files, handle, LF)\n        files.fsync(handle)\n",
        "        write_all(files, handle, LF)\n",
    ),
    Mutant(
        "a stale temporary file of the quarantine is in the way",
        "_repair.py",
        "        if files.stat(temporary) is not None:\n"
        "            files.unlink(temporary)\n"
        "        _copy(files, handle, temporary, start=plan.keep",
        "        _copy(files, handle, temporary, start=plan.keep",
    ),
    Mutant(
        "the copy of torn bytes is not renamed",
        "_repair.py",
        "        files.rename(temporary, name)\n",
        "",
    ),
    Mutant(
        "the quarantine's directories are not synced",
        "_repair.py",
        '    for directory in (names.quarantine, names.directory, ""):\n'
        "        files.fsync_directory(directory)\n",
        "    del files, names\n",
    ),
    Mutant(
        "only the quarantine itself is synced, not where it is",
        "_repair.py",
        '(names.quarantine, names.directory, "")',
        "(names.quarantine,)",
    ),
    Mutant(
        "a copy is not synced",
        "_repair.py",
        "        files.fsync(copy)\n",
        "        pass\n",
    ),
    Mutant(
        "a stale copy of the active file is in the way",
        "_repair.py",
        "    if files.stat(names.temporary) is not None:\n        files.unlink(names.temporary)\n",
        "",
    ),
    Mutant(
        "the old inode is not kept",
        "_repair.py",
        "    if files.stat(old) is None:\n        files.link(names.active, old)\n",
        "",
    ),
    Mutant(
        "the old inode's place in the quarantine is not synced",
        "_repair.py",
        "    _fsync_quarantine(files, names)\n    if not still_true",
        "    if not still_true",
    ),
    Mutant(
        "the copy does not take the place",
        "_repair.py",
        "    files.rename(names.temporary, names.active)\n",
        "",
    ),
    Mutant(
        "the new inode's place is not synced",
        "_repair.py",
        '    files.rename(names.temporary, names.active)\n    files.fsync_directory("")\n',
        "    files.rename(names.temporary, names.active)\n",
    ),
    Mutant(
        "the copy is not compared",
        "_repair.py",
        "    if copied != crc:",
        "    if copied < 0:",
    ),
    Mutant(
        "what others wrote is not synced",
        "_tail.py",
        "        self._files.fsync(self.handle)\n        self._files.drop_cache(self.handle)\n",
        "        self._files.drop_cache(self.handle)\n",
    ),
    Mutant(
        "the page cache is trusted",
        "_tail.py",
        "        self._files.fsync(self.handle)\n        self._files.drop_cache(self.handle)\n",
        "        self._files.fsync(self.handle)\n",
    ),
    Mutant(
        "the cache is dropped before the sync",
        "_tail.py",
        "        self._files.fsync(self.handle)\n        self._files.drop_cache(self.handle)\n",
        "        self._files.drop_cache(self.handle)\n        self._files.fsync(self.handle)\n",
    ),
    Mutant(
        "any record of the segment is trusted",
        "_tail.py",
        'record is not None and record.state == "idle" and record.end == size',
        "record is not None",
    ),
    Mutant(
        "no record is ever trusted",
        "_tail.py",
        'trusted = record is not None and record.state == "idle" and record.end == size',
        "trusted = False",
    ),
    Mutant(
        "an error of another store is not noticed",
        "_tail.py",
        "        if size == known and not failed:\n",
        "        if size == known:\n",
    ),
    Mutant(
        "the last bytes are not read back",
        "_tail.py",
        "        if size < known or last != self._last_bytes:",
        "        if size < known:",
    ),
    Mutant(
        "after an error the inode stays",
        "_tail.py",
        'renewed = record is not None and record.state == "failed"',
        "renewed = False",
    ),
    Mutant(
        "after an error the whole segment is not read again",
        "_tail.py",
        "return self._adopt(record, rescan=failed)",
        "return self._adopt(record, rescan=False)",
    ),
    Mutant(
        "a sealed file is taken for a replaced one",
        "_tail.py",
        "        if files.stat(names.sealed(self.segment)) is not None:",
        "        if False:",
    ),
    Mutant(
        "a missing segment is not noticed",
        "_tail.py",
        "scanner.place.position + 1 != first_position:",
        "scanner.place.position + 1 < 0:",
    ),
    Mutant(
        "a place is durable when it is written",
        "_tail.py",
        "        self.place = place\n        self._last_bytes",
        "        self.place = self._durable = place\n        self._last_bytes",
    ),
    Mutant(
        "segments with foreign lines are sealed",
        "_tail.py",
        "        return not (done.foreign or done.noise or done.void or done.bad)",
        "        return True",
    ),
    Mutant(
        "a torn tail stays",
        "_recovery.py",
        "    keep, terminate = settled.offset, False\n",
        "    keep, terminate = size, False\n",
    ),
    Mutant(
        "NULs behind a foreign record are part of it",
        "_recovery.py",
        "rest_offset + len(rest.rstrip(NUL)), True",
        "rest_offset + len(rest), True",
    ),
    Mutant(
        "a foreign record without LF is cut",
        "_recovery.py",
        "    if ends_as_foreign_record(rest):\n        keep",
        "    if False:\n        keep",
    ),
    Mutant(
        "a torn commit is settled",
        "_scan.py",
        "        return self._unsettled or self.place",
        "        return self.place",
    ),
    Mutant(
        "readers do not sync what they show",
        "_snapshot.py",
        "            files.fsync(handle)\n            files.fsync_directory",
        "            files.fsync_directory",
    ),
    Mutant(
        "readers trust the page cache",
        "_snapshot.py",
        "            files.drop_cache(handle)\n",
        "",
    ),
    Mutant(
        "readers show what a writer is at",
        "_snapshot.py",
        "return record.end, record.position, status.inode\n        try:\n            record",
        "return status.size, record.position, status.inode\n        try:\n            record",
    ),
    Mutant(
        "readers keep the shared lock",
        "_snapshot.py",
        "            if locked:\n                self._lock.release()\n",
        "            pass\n",
    ),
    Mutant(
        "readers take no lock",
        "_snapshot.py",
        "locked = self._lock.acquire(exclusive=False, timeout_seconds=self._lock_timeout_seconds)",
        "locked = False",
    ),
    Mutant(
        "the lock is shared",
        "_lock.py",
        "try_lock(handle, exclusive=exclusive)",
        "try_lock(handle, exclusive=False)",
    ),
    Mutant(
        "a busy lock is taken for free",
        "_lock.py",
        "            if self._files.try_lock(handle, exclusive=exclusive):",
        "            if self._files.try_lock(handle, exclusive=exclusive) or True:",
    ),
    Mutant(
        "a torn lock record counts",
        "_lock_record.py",
        "crc32(data[: RECORD_BYTES - 9]) != int(match[9], 16)",
        "int(match[9], 16) < 0",
    ),
    Mutant(
        "an old lock record counts",
        "_evidence.py",
        "    if watched != record.start_crc:\n        return None, False\n",
        "",
    ),
    Mutant(
        "the LF is left out of the running CRC",
        "_numbering.py",
        "running = crc32(suffix, running)",
        "running = crc32(suffix[:-1], running)",
    ),
    Mutant(
        "readers do not sync the file's entry",
        "_snapshot.py",
        '            files.fsync_directory("")',
        "            pass",
    ),
    Mutant(
        "the active file's entry is not synced at opening",
        "_tail.py",
        '            files.fsync_directory("")  # whoever made',
        "            pass  # whoever made",
    ),
    Mutant(
        "the entry of a copy that another made is not synced",
        "_tail.py",
        '        files.fsync_directory("")  # whoever renamed',
        "        pass  # whoever renamed",
    ),
    Mutant(
        "sealing does not make a new active file",
        "_tail.py",
        "        self._open_active(self.place, None)\n",
        "",
    ),
    Mutant(
        "half a commit is shown, line by line",
        "_scan.py",
        "            if line.position == last:\n",
        "            if line.position <= last:\n",
    ),
    Mutant(
        "half a commit is shown, of a chunk",
        "_commits.py",
        "        if end > count:\n            return index\n",
        "        if end > count:\n            return count\n",
    ),
    Mutant(
        "the running CRC of a line is not compared",
        "_scan.py",
        'claimed == b"%08x" % at_cut and decoded.position',
        "decoded.position",
    ),
    Mutant(
        "the CRC of a chunk is not compared",
        "_scan.py",
        "        if data[-_CRC_TEXT - 1 : -1] != b'%08x%08x\"}' % (own, at_cut):\n"
        "            return False\n",
        "        del own\n",
    ),
    Mutant(
        "a new active file takes a name that may not be free",
        "_tail.py",
        '            files.fsync_directory("")\n'
        '        handle = files.open(names.active, "append", create=status is None)\n',
        "            pass\n"
        '        handle = files.open(names.active, "append", create=status is None)\n',
    ),
    Mutant(
        "an index is believed without a look at the log",
        "_index_files.py",
        "    return running_after(files.pread(handle, size, place.offset - size)) == "
        "place.running\n",
        "    return True\n",
    ),
    Mutant(
        "an index is believed wherever the log's segments begin",
        "_tail.py",
        '        if status is None or status.kind != "file" or base + mark.place.offset != '
        "mark.log_offset:\n",
        '        if status is None or status.kind != "file":\n',
    ),
    Mutant(
        "a run of the index follows one of another log",
        "_index_files.py",
        "            if run.head.start == start and _name(start, run.head.end) == name:\n",
        "            if _name(start, run.head.end) == name:\n",
    ),
    Mutant(
        "the index is written of what is not durable",
        "_tail.py",
        "        if self._durable != place or running_after(self._last_bytes) != place.running:\n",
        "        if running_after(self._last_bytes) != place.running:\n",
    ),
    Mutant(
        "the index is written of what was not adopted",
        "_index_keeper.py",
        "        if mark is None or mark.place.position < index.recent.position:\n",
        "        if mark is None:\n",
    ),
    Mutant(
        "an index forgets the foreign lines before its mark",
        "_tail.py",
        "            self._count(mark.counts, anew=True)\n",
        "",
    ),
    Mutant(
        "what the index covers counts as not yet durable",
        "_tail.py",
        "            self.durable_position = mark.place.position\n",
        "",
    ),
    Mutant(
        "runs are joined in the wrong order",
        "_index_run.py",
        "        entries.append((stream_hash, first, size, versions[-1]))\n",
        "        entries.append((stream_hash, first, size, versions[0]))\n",
    ),
    Mutant(
        "a page of the index is not checked",
        "_index_run.py",
        "        if page[_PAGE_USED:] != _PAGE_CHECK.pack(crc32(used, check)):\n",
        "        if len(page) != _PAGE_BYTES:\n",
    ),
    Mutant(
        "a damaged index is asked once more instead of the log",
        "_tail.py",
        "        self.kept_index.forget()\n",
        "",
    ),
    Mutant(
        "a key in the index is not read in the log",
        "_admission.py",
        "        if (found.stream, found.key) != (stream, key):\n            break\n",
        "",
    ),
)
