"""What both workspaces promise, and what only the one on disk can be asked."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

import pytest

from eventstore._errors import RunContextError
from eventstore._runs import DiskWorkspace, MemoryWorkspace, Workspace


def put(workspace: Workspace, name: str, content: bytes) -> None:
    """Write a whole file."""
    with workspace.replacing(name) as file:
        file.write(content)


def test_a_directory_is_made_once(workspace: Workspace) -> None:
    """Making one fails where anything has the name, and where the parent is not there."""
    workspace.mkdir("a")
    with pytest.raises(FileExistsError):
        workspace.mkdir("a")
    with pytest.raises(FileNotFoundError):
        workspace.mkdir("b/c")
    put(workspace, "file", b"")
    with pytest.raises(FileExistsError):
        workspace.mkdir("file")
    assert sorted(workspace.listdir("")) == ["a", "file"]


def test_of_many_creators_one_succeeds(workspace: Workspace) -> None:
    """When several threads make the same directory, exactly one does."""
    start = threading.Barrier(8)
    made: list[int] = []

    def make(number: int) -> None:
        start.wait()
        try:
            workspace.mkdir("a")
        except FileExistsError:
            return
        made.append(number)

    threads = [threading.Thread(target=make, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_appends_go_to_the_end(workspace: Workspace) -> None:
    """An append file reads anywhere and writes at the end, wherever it stood."""
    with workspace.open_append("log") as file:
        file.write(b"one\n")
        file.seek(0)
        assert file.read(2) == b"on"
        file.write(b"two\n")
        with workspace.open_append("log") as other:
            other.write(b"three\n")
        file.write(b"four\n")
    with workspace.open_read("log") as file:
        assert file.read() == b"one\ntwo\nthree\nfour\n"
    found = workspace.stat("log")
    assert found is not None
    assert (found.kind, found.size) == ("file", 19)


def test_a_held_lock_is_waited_for_and_no_longer(workspace: Workspace) -> None:
    """A locked file is refused after the deadline, and free once its holder closed it."""
    with workspace.open_append("log", lock_timeout_seconds=0.0):
        with pytest.raises(BlockingIOError):
            workspace.open_append("log", lock_timeout_seconds=0.01)
        workspace.open_append("log").close()
    workspace.open_append("log", lock_timeout_seconds=0.0).close()


def test_a_file_is_replaced_whole_or_not_at_all(workspace: Workspace) -> None:
    """An error in the body leaves the old file, and no temporary one."""
    put(workspace, "file", b"old")

    def fail() -> None:
        with workspace.replacing("file") as file:
            file.write(b"new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with workspace.open_read("file") as file:
        assert file.read() == b"old"
    assert workspace.listdir("") == ["file"]
    put(workspace, "file", b"new")
    with workspace.open_read("file") as file:
        assert file.read() == b"new"
    assert workspace.listdir("") == ["file"]


def test_a_tree_is_renamed_and_removed_with_all_that_is_in_it(workspace: Workspace) -> None:
    """Renaming and removing a directory take its files and directories along, and no neighbour."""
    workspace.mkdir("a")
    workspace.mkdir("ab")
    workspace.mkdir("a/b")
    put(workspace, "a/b/file", b"x")
    workspace.rename("a", "c")
    assert workspace.stat("a") is None
    assert workspace.listdir("c/b") == ["file"]
    workspace.remove_tree("c")
    assert workspace.listdir("") == ["ab"]
    with pytest.raises(FileNotFoundError):
        workspace.remove_tree("c")


def test_a_directory_has_one_holder(workspace: Workspace) -> None:
    """The lock of a directory is exclusive, given back at the end, and not for absent ones."""
    workspace.mkdir("a")
    with (
        workspace.exclusive("a"),
        pytest.raises(BlockingIOError),
        workspace.exclusive("a"),
    ):
        pytest.fail("two holders")
    with workspace.exclusive("a"):
        pass
    with pytest.raises(FileNotFoundError), workspace.exclusive("b"):
        pytest.fail("a holder of nothing")


def test_what_is_missing_is_missing(workspace: Workspace) -> None:
    """Absent names have no stat, and every use of one is FileNotFoundError."""
    assert workspace.stat("a") is None
    assert workspace.stat("a/b") is None
    for use in (workspace.listdir, workspace.open_read, workspace.remove_file):
        with pytest.raises(FileNotFoundError):
            use("a")
    with pytest.raises(FileNotFoundError):
        workspace.open_append("a/b")
    with pytest.raises(FileNotFoundError):
        put(workspace, "a/b", b"")
    with pytest.raises(FileNotFoundError):
        workspace.rename("a", "b")


def test_a_directory_is_no_file(workspace: Workspace) -> None:
    """Opening a directory as a file fails, for reading and for appending."""
    workspace.mkdir("a")
    with pytest.raises((IsADirectoryError, RunContextError)):
        workspace.open_append("a")
    with pytest.raises((IsADirectoryError, RunContextError)):
        workspace.open_read("a")


def test_memory_looks_at_no_disk(tmp_path: Path) -> None:
    """A memory workspace whose root exists on disk writes nothing there."""
    workspace = MemoryWorkspace(tmp_path)
    workspace.make_root()
    workspace.mkdir("a")
    assert list(tmp_path.iterdir()) == []


def test_new_entries_are_for_the_owner_only(tmp_path: Path) -> None:
    """Directories are 0700 and files 0600, with any umask of the caller."""
    workspace = DiskWorkspace(tmp_path / "new" / "root")
    previous = os.umask(0)
    try:
        workspace.make_root()
        workspace.mkdir("a")
        workspace.open_append("a/log").close()
        put(workspace, "a/file", b"")
    finally:
        os.umask(previous)
    modes = {
        path.name: path.stat().st_mode & 0o777
        for path in [tmp_path / "new", *(tmp_path / "new").rglob("*")]
    }
    assert modes == {"new": 0o700, "root": 0o700, "a": 0o700, "log": 0o600, "file": 0o600}


@pytest.mark.parametrize("kind", ["symlink", "dangling", "hard link", "fifo", "directory", "0666"])
def test_what_was_planted_is_not_appended_to(tmp_path: Path, kind: str) -> None:
    """Anything but a plain file of one name that only we can write is refused, at once."""
    outside = tmp_path / "outside"
    outside.write_text("precious")
    planted = tmp_path / "root" / "log"
    planted.parent.mkdir()
    if kind == "symlink":
        planted.symlink_to(outside)
    elif kind == "dangling":
        planted.symlink_to(tmp_path / "nowhere")
    elif kind == "hard link":
        planted.hardlink_to(outside)
    elif kind == "fifo":
        os.mkfifo(planted)
    elif kind == "directory":
        planted.mkdir()
    else:
        planted.touch()
        planted.chmod(0o666)
    with pytest.raises((RunContextError, IsADirectoryError), match=str(planted)):
        DiskWorkspace(planted.parent).open_append("log")
    assert outside.read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()


def test_a_planted_symlink_is_not_read_and_is_replaced_itself(tmp_path: Path) -> None:
    """Reading refuses a symlink, and replacing puts the new file where the link was."""
    outside = tmp_path / "outside"
    outside.write_text("precious")
    root = tmp_path / "root"
    root.mkdir()
    (root / "file").symlink_to(outside)
    workspace = DiskWorkspace(root)
    with pytest.raises(RunContextError, match="is a symlink"):
        workspace.open_read("file")
    put(workspace, "file", b"new")
    assert outside.read_text() == "precious"
    assert not (root / "file").is_symlink()


@pytest.mark.parametrize("planted", ["symlink", "file", "0777"])
def test_nothing_goes_through_a_planted_directory(tmp_path: Path, planted: str) -> None:
    """A directory that is a symlink, a file, or writable by everybody is not entered."""
    outside = tmp_path / "outside"
    outside.mkdir()
    root = tmp_path / "root"
    root.mkdir()
    if planted == "symlink":
        (root / "a").symlink_to(outside)
    elif planted == "file":
        (root / "a").touch()
    else:
        (root / "a").mkdir()
        (root / "a").chmod(0o777)
    workspace = DiskWorkspace(root)
    for use in (workspace.mkdir, workspace.open_append, workspace.remove_tree, workspace.stat):
        with pytest.raises(RunContextError, match="nothing outside was touched"):
            use("a/b")
    with pytest.raises(RunContextError):
        workspace.listdir("a")
    assert list(outside.iterdir()) == []


def test_errors_name_the_whole_path(tmp_path: Path) -> None:
    """A system error names the path a person can look at, not a descriptor or a piece."""
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "a")):
        DiskWorkspace(tmp_path).open_read("a/b")


def test_a_relative_root_stays_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The working directory of the beginning completes a relative root, for good."""
    monkeypatch.chdir(tmp_path)
    workspace = DiskWorkspace("root")
    workspace.make_root()
    monkeypatch.chdir("/")
    workspace.mkdir("a")
    assert (tmp_path / "root" / "a").is_dir()


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    """Every call closes what it opened, when it fails too."""
    workspace = DiskWorkspace(tmp_path)
    (tmp_path / "link").symlink_to("/etc")
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir").chmod(0o777)
    os.mkfifo(tmp_path / "fifo")
    held = workspace.open_append("log", lock_timeout_seconds=0.0)
    before = open_descriptors()
    for name in ("link", "link/x", "dir/x", "none/x", "none", "fifo"):
        for use in (workspace.listdir, workspace.open_read, workspace.remove_tree, workspace.stat):
            with contextlib.suppress(OSError, RunContextError):
                use(name)
    for name in ("fifo", "log", "dir/x"):
        with contextlib.suppress(OSError, RunContextError):
            workspace.open_append(name, lock_timeout_seconds=0.0)
    assert open_descriptors() == before
    held.close()


def open_descriptors() -> int:
    """How many descriptors this process has, 0 where the system does not tell."""
    directory = Path("/proc/self/fd")
    return len(list(directory.iterdir())) if directory.exists() else 0
