"""How does a test run the commands of a child process within its own?

What happens between two processes is tested where that is the question; here a model is loaded
and a library imported but once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kinoloom.config import Settings
from kinoloom.jobs.commands import Commands
from kinoloom.jobs.messages import pack, unpack


class Within:
    """Used in place of a `RenderProcess`: everything real but the process."""

    def __init__(self, settings: Settings, *, threads: int | None = None, light: bool = False):
        self._settings = settings

    def start(self) -> None:
        """There is nothing to start."""

    def close(self) -> None:
        """Nothing was started."""

    def call(
        self,
        command: str,
        arguments: Mapping[str, Any],
        *,
        on_message: Callable[[dict[str, Any]], None] = lambda _: None,
        should_stop: Callable[[], bool] = lambda: False,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """As `RenderProcess.call`, without its deadline."""
        commands = Commands(
            self._settings, lambda told: on_message(unpack(pack(told))), should_stop
        )
        return unpack(pack(commands.run(command, unpack(pack(arguments)))))
