"""A read model in SQLite: SQL and checkpoint in one transaction, in a worker thread.

The database is in WAL mode with `synchronous=NORMAL`. Readers, in this process or any other, are
never blocked and never block; a killed process leaves whole transactions; and a power cut may take
the last ones, checkpoint included, which are then made again from the log. What is rebuilt grows
in a file beside it (`<path>.next`), and is copied over by SQLite's own backup in one transaction:
renaming a file over a database that others have open would leave them with a journal of another.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, TypeVar

from eventstore import Bookmark, Event, Recorded
from projections._projection import E_contra
from projections._read_model import Checkpoint, ReadModelSession

__all__ = ["SqliteReadModel", "sqlite_read_model"]

E = TypeVar("E", bound=Event)

_BUSY_SECONDS: Final = 30.0
_RETRY_SECONDS: Final = 0.01
_CREATE: Final = (
    "CREATE TABLE IF NOT EXISTS loopledger_checkpoint ("
    "name TEXT PRIMARY KEY, revision INTEGER NOT NULL, position INTEGER NOT NULL, "
    "proof TEXT NOT NULL) WITHOUT ROWID"
)
_SELECT: Final = "SELECT revision, position, proof FROM loopledger_checkpoint WHERE name = ?"
_UPSERT: Final = "INSERT OR REPLACE INTO loopledger_checkpoint VALUES (?, ?, ?, ?)"


def sqlite_read_model(
    path: str | os.PathLike[str],
    *,
    name: str,
    schema: Sequence[str],
    apply: Callable[[sqlite3.Connection, Recorded[E]], None],
    revision: int = 1,
) -> SqliteReadModel[E]:
    """Keep tables of your own in an SQLite database, each event's effect in them exactly once.

    Args:
        path: the database; made if absent. Besides yours it has the table `loopledger_checkpoint`.
        name: what the read model is called, unique among yours.
        schema: statements that make your tables and indexes, run once in a new database.
        apply: turns one event into SQL. It runs in a worker thread, in a transaction together with
            others and the checkpoint; it cannot commit, and must not keep the connection.
        revision: raise it when `schema` or `apply` changes: a new database is then built beside
            the old one, which is shown until the new one has caught up.

    Returns:
        A read model for `open_projector(store, read_models=[…])`.
    """
    return SqliteReadModel(path, name=name, schema=schema, apply=apply, revision=revision)


class SqliteReadModel(Generic[E_contra]):
    """What `sqlite_read_model` returns; keeps the protocol `ReadModel`."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        name: str,
        schema: Sequence[str],
        apply: Callable[[sqlite3.Connection, Recorded[E_contra]], None],
        revision: int,
    ) -> None:
        self._path: str = os.path.abspath(os.fspath(path))  # noqa: PTH100 - no symlink is resolved
        self._name = name
        self._schema = schema
        self._apply = apply
        self._revision = revision

    def __repr__(self) -> str:
        return f"<read model {self._name!r}, revision {self._revision}, in {self._path!r}>"

    @property
    def name(self) -> str:
        """What it is called."""
        return self._name

    @property
    def revision(self) -> int:
        """Of `schema` and `apply`."""
        return self._revision

    def open(self) -> ReadModelSession[E_contra]:
        """Open the database that readers see."""
        return self._open(self._path)

    def open_next(self, *, anew: bool) -> ReadModelSession[E_contra]:
        """Open the one beside it."""
        path = f"{self._path}.next"
        if anew:
            _remove(path)
        return self._open(path)

    def swap(self, live: ReadModelSession[Any], following: ReadModelSession[Any]) -> None:
        """Copy the one beside over the one that readers see, in one transaction."""
        assert isinstance(live, _Session)
        assert isinstance(following, _Session)
        following.connection.backup(live.connection)
        following.close()
        _remove(f"{self._path}.next")

    def _open(self, path: str) -> _Session[E_contra]:
        connection = sqlite3.connect(
            path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            _use_wal(connection)
            connection.execute("PRAGMA synchronous = NORMAL")
            session = _Session(connection, self._name, self._apply)
            session.begin()
            connection.execute(_CREATE)
            if connection.execute(_SELECT, (self._name,)).fetchone() is None:
                for statement in self._schema:
                    connection.execute(statement)
                session.record(Checkpoint(self._revision, None))
            session.commit()
        except BaseException:  # raised again: nobody else has the connection to close it
            connection.close()  # with what was begun
            raise
        return session


class _Session(Generic[E_contra]):
    def __init__(
        self,
        connection: sqlite3.Connection,
        name: str,
        apply: Callable[[sqlite3.Connection, Recorded[E_contra]], None],
    ) -> None:
        self.connection = connection
        self._name = name
        self._apply = apply

    def checkpoint(self) -> Checkpoint:
        """Read the row."""
        row = self.connection.execute(_SELECT, (self._name,)).fetchone()
        revision, position, proof = row
        return Checkpoint(revision, Bookmark(position, proof) if proof else None)

    def begin(self) -> None:
        """Take the write lock at once, so that nobody is between us and the checkpoint."""
        self.connection.execute("BEGIN IMMEDIATE")
        self.connection.set_authorizer(_keep_transaction)

    def apply(self, recorded: Recorded[E_contra]) -> None:
        """Let the user's code work; it cannot end the transaction."""
        self._apply(self.connection, recorded)

    def record(self, checkpoint: Checkpoint) -> None:
        """Write the row."""
        self.connection.set_authorizer(None)
        bookmark = checkpoint.bookmark or Bookmark(0, "")
        row = (self._name, checkpoint.revision, bookmark.position, bookmark.proof)
        self.connection.execute(_UPSERT, row)

    def commit(self) -> None:
        """Commit."""
        self.connection.set_authorizer(None)
        self.connection.execute("COMMIT")

    def rollback(self) -> None:
        """Roll back, unless SQLite has done it itself."""
        self.connection.set_authorizer(None)
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to WAL mode; SQLite does not wait by itself while somebody else does just that."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_SECONDS)
        else:
            return


def _keep_transaction(action: int, *_: str | None) -> int:
    """Refuse a user's BEGIN, COMMIT and ROLLBACK, also those that Python makes of other calls."""
    return sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_TRANSACTION else sqlite3.SQLITE_OK


def _remove(path: str) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + suffix)  # noqa: PTH108
