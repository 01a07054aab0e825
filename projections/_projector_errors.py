"""Why something that follows the log has stopped, or was closed."""

from __future__ import annotations

from typing import Literal, TypeAlias

from eventstore import EventStoreError

__all__ = ["Follower", "ProjectionFailedError", "ProjectorClosedError", "RebuildLostError"]

Follower: TypeAlias = Literal["projection", "handler", "read model"]


class ProjectionFailedError(EventStoreError):
    """A projection, handler or read model has stopped at an event; the others go on.

    The view stays as it was before. `__cause__` is what was raised.
    """

    def __init__(
        self,
        *,
        name: str,
        position: int,
        cause: BaseException,
        what: Follower = "projection",
    ) -> None:
        super().__init__(
            f"{what} {name!r:.80} stopped at position {position}: {type(cause).__name__}: "
            f"{cause!s:.500}; what it made of the events before stays; mend it and open it again"
        )
        self.name = name
        self.position = position
        self.cause = cause
        self.what: Follower = what
        self.__cause__ = cause

    def again(self) -> ProjectionFailedError:
        """The same fact, to be raised once more."""
        return ProjectionFailedError(
            name=self.name, position=self.position, cause=self.cause, what=self.what
        )


class ProjectorClosedError(EventStoreError):
    """The block of `open_projector` has ended, so nothing follows the log any more."""

    def __init__(self, undone: str) -> None:
        super().__init__(f"the projector was closed: {undone}; open it again")
        self.undone = undone


class RebuildLostError(EventStoreError):
    """Another rebuild of the same projection has taken over; this one changed nothing."""

    def __init__(self, *, name: str) -> None:
        super().__init__(f"another rebuild of {name!r:.80} has begun; follow that one")
        self.name = name
