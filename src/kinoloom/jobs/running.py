"""How does a worker live as a process of its own?"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence

from kinoloom.config import Settings
from kinoloom.jobs.worker import Worker
from kinoloom.store.store import Store

_log = logging.getLogger(__name__)


def run_worker(
    settings: Settings,
    *,
    name: str | None = None,
    queues: Sequence[str] | None = None,
    supervised: bool = False,
) -> None:
    """Run jobs until KeyboardInterrupt, which SIGTERM becomes too.

    A `supervised` worker ends when its standard input does: then its parent is gone. Raises
    Conflict when a worker of that name runs, and as `Store.open` does.
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("kinoloom").setLevel(logging.INFO)
    with Store.of(settings) as store:
        worker = Worker(settings, store, name=name, queues=queues)
        worker.start()
        if supervised:
            threading.Thread(target=_end_with_parent, daemon=True).start()
        _log.info("The worker %s serves %s.", worker.id, ", ".join(worker.queues))
        try:
            threading.Event().wait()
        finally:
            worker.stop()


def _end_with_parent() -> None:
    # Not sys.stdin, whose lock this thread would hold when the interpreter ends.
    while os.read(0, 4096):
        pass
    # The parent was killed: as with a kill of this process, whoever comes next takes the jobs over.
    os._exit(1)
