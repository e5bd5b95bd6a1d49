"""What is closed at the end of a ``with``."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self


class Closing:
    """Anything with a ``close`` becomes a context manager."""

    __slots__ = ()

    def close(self) -> Any:
        """Give up what is held."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
