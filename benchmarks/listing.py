"""Does a page of clips or jobs cost more when there are 100,000 than when there are 10?

Two stores and a `kinoloom serve` on each, asked in turn for the same page of five, through the API
and from the store itself. Rows are copies of a planned request's, each with an id and words of its
own. What has to look at every row is shown below, and not judged: looking for a word that nothing
has, and adding everything up.

Target: at most 1.5 times as long, for every page, on SQLite and on PostgreSQL where there is one.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from sqlalchemy import text

from benchmarks.effort import repeats
from benchmarks.machine import machine_line
from benchmarks.processes import LIMIT, served
from kinoloom.config import Settings
from kinoloom.jobs.service import JobService
from kinoloom.request import VideoRequest
from kinoloom.store.clips import ClipRecord
from kinoloom.store.ids import new_id
from kinoloom.store.store import Store

TARGET = 1.5
FEW, MANY = 10, repeats(100_000, 5_000)
PAGE, LONG_PAGE = FEW // 2, 50
ROUNDS, ROUNDS_OF_OTHERS = repeats(41, 5), repeats(7)

Work = Callable[[], int]


def fill(settings: Settings, rows: int) -> None:
    """Put so many clips and jobs into a store; every job with an event, every clip with a picture.

    Written in bulk, with what a job and a clip that were added one by one have in their rows.
    """
    with Store.of(settings) as store:
        service = JobService(settings, store)
        job = service.submit(VideoRequest(prompt="a red ball rolling"))
        service.close()
        assert job.plan is not None  # it was planned just now
        same = {name: getattr(job, name) for name in ("task", "model", "backend", "plan_key")}
        size = {name: job.plan[name] for name in ("seed", "width", "height", "frames", "fps")}
        store.clips.add(
            ClipRecord(
                path=Path("clip.mp4"),
                format="mp4",
                request=job.request,
                plan=job.plan,
                timings={"load": 0.1, "encode": 0.1, "denoise": 4.0, "decode": 1.0, "total": 6.0},
                scores={"sharpness": 0.9, "temporal": 0.9, "colour": 1.0, "overall": 0.93},
                poster=store.assets.put_bytes(b"a picture", "poster").digest,
                job_id=job.id,
                **same,
                **size,
            )
        )
        _copy(store, "jobs", rows - 1, {"id": "id", "search": "words", "prompt": "words"})
        _copy(store, "clips", rows - 1, {"id": "id", "search": "words"})


# What belongs to a row of a table: the table that it is in, and its column with the row's id.
_BESIDE = {"jobs": ("job_events", "job_id"), "clips": ("clip_assets", "clip_id")}


def _copy(store: Store, name: str, count: int, changed: Mapping[str, str]) -> None:
    """Copy the only row of a table and the one beside it within the database, so that no JSON has
    to be written for each; `changed` are the columns with an id or words of their own."""
    beside, column = _BESIDE[name]
    values = [
        {"id": new_id(), "words": f"a red ball rolling, number {n + 2}"} for n in range(count)
    ]
    database = store.clips._database
    with database.writing() as session:
        session.execute(text("CREATE TEMPORARY TABLE copies (id VARCHAR(36), words TEXT)"))
        session.execute(text("INSERT INTO copies VALUES (:id, :words)"), values)
        for table, own in ((name, changed), (beside, {column: "id"})):
            columns = session.execute(text(f"SELECT * FROM {table}")).keys()
            kept = [c for c in columns if c != "number"]  # which the database counts itself
            from_where = [f"copies.{own[c]}" if c in own else f'one."{c}"' for c in kept]
            into = ", ".join(f'"{c}"' for c in kept)
            session.execute(
                text(
                    f"INSERT INTO {table} ({into}) SELECT {', '.join(from_where)}"
                    f" FROM copies CROSS JOIN (SELECT * FROM {table} LIMIT 1) AS one"
                )
            )
        session.execute(text("DROP TABLE copies"))


@dataclass(frozen=True)
class Side:
    """A store, and what is asked of it and of its server: seconds are taken of each `Work`, which
    says how many rows it was given."""

    pages: Mapping[str, Work]
    others: Mapping[str, Work]


@contextmanager
def side(home: Path, rows: int, database_url: str | None) -> Iterator[Side]:
    """A filled store and its server."""
    settings = Settings(home=home, database_url=database_url)  # type: ignore[arg-type]
    fill(settings, rows)
    given = {} if database_url is None else {"DATABASE_URL": database_url}
    with (
        served(home, "--no-worker", **given) as server,
        httpx.Client(base_url=server.url, timeout=LIMIT) as client,
        Store.of(settings) as store,
    ):

        def get(path: str) -> Work:
            def work() -> int:
                answer = client.get(path).raise_for_status().json()
                return len(answer.get("items", ()))

            return work

        middle = store.clips.list(rows // 2)[-1].id
        pages = {
            "store.clips.list": lambda: len(store.clips.list(PAGE)),
            "store.jobs.list": lambda: len(store.jobs.list(limit=PAGE)),
            "GET /api/clips": get(f"/api/clips?limit={PAGE}"),
            "GET /api/clips, from the middle": get(f"/api/clips?limit={PAGE}&cursor={middle}"),
            "GET /api/clips of a model": get(f"/api/clips?limit={PAGE}&model=spark"),
            "GET /api/clips, a common word": get(f"/api/clips?limit={PAGE}&search=ball"),
            "GET /api/jobs": get(f"/api/jobs?limit={PAGE}"),
            "GET /api/jobs of a state": get(f"/api/jobs?limit={PAGE}&state=queued"),
        }
        others = {
            "GET /api/clips, a word of none": get("/api/clips?search=zebra"),
            "GET /api/queues": get("/api/queues"),
            "GET /api/statistics": get("/api/statistics"),
            f"GET /api/clips, up to {LONG_PAGE}": get(f"/api/clips?limit={LONG_PAGE}"),
        }
        yield Side(pages, others)


def compare(
    few: Mapping[str, Work], many: Mapping[str, Work], rounds: int
) -> dict[str, tuple[float, float]]:
    """The median seconds of each piece of work on both sides; they take turns."""
    taken: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in few}
    for name in few:  # what is read or compiled once
        few[name](), many[name]()
    for _ in range(rounds):
        for name, (ours, theirs) in taken.items():
            for work, seconds in ((few[name], ours), (many[name], theirs)):
                begin = time.perf_counter()
                work()
                seconds.append(time.perf_counter() - begin)
    return {name: (statistics.median(a), statistics.median(b)) for name, (a, b) in taken.items()}


def show(title: str, few: Side, many: Side) -> float:
    """Print what everything took; the largest ratio of a page."""
    for name, work in few.pages.items():
        if (work(), many.pages[name]()) != (PAGE, PAGE):
            sys.exit(f"{name} is not a page of {PAGE}.")
    print(f"{title:36s} {f'{FEW} ms':>10s} {f'{MANY} ms':>10s} {'ratio':>8s}")
    worst = 0.0
    for name, (small, large) in compare(few.pages, many.pages, ROUNDS).items():
        worst = max(worst, large / small)
        print(f"{name:36s} {small * 1000:10.2f} {large * 1000:10.2f} {large / small:8.2f}")
    for name, (small, large) in compare(few.others, many.others, ROUNDS_OF_OTHERS).items():
        print(f"  {name:34s} {small * 1000:10.2f} {large * 1000:10.2f} {large / small:8.2f}")
    return worst


@contextmanager
def two_databases() -> Iterator[tuple[str, str] | None]:
    """The addresses of two empty databases of a PostgreSQL server that is gone afterwards; None
    where there is no PostgreSQL."""
    from tests import services

    program = services._find_postgres()
    if program is None:
        yield None
        return
    server = services.PostgresServer(Path(program).parent)
    try:
        server.start()
        yield server.create(), server.create()
    finally:
        server.stop()


def main() -> None:
    """Print the tables."""
    print(machine_line())
    print(f"a page of {PAGE}, median of {ROUNDS}; what is set in is not judged")
    worst = {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        few = stack.enter_context(side(Path(folder) / "few", FEW, None))
        many = stack.enter_context(side(Path(folder) / "many", MANY, None))
        worst["SQLite"] = show("SQLite", few, many)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        urls = stack.enter_context(two_databases())
        if urls is None:
            print("PostgreSQL: there is none on this machine")
        else:
            few = stack.enter_context(side(Path(folder) / "few", FEW, urls[0]))
            many = stack.enter_context(side(Path(folder) / "many", MANY, urls[1]))
            worst["PostgreSQL"] = show("PostgreSQL", few, many)
    met = "met" if max(worst.values()) <= TARGET else "MISSED"
    told = ", ".join(f"{ratio:.2f} on {name}" for name, ratio in worst.items())
    print(f"target {TARGET} times as long for every page: {told}, {met}")


if __name__ == "__main__":
    main()
