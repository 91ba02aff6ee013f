"""How long does everything hold while servers, workers and renders are killed at random?

    python scripts/chaos.py [--kills 200] [--seed N]

Half of the blows are for a server with its worker on SQLite, half for two workers on a PostgreSQL
database of its own. The tally is printed; the exit code is 1 as soon as a job was lost, done twice,
or left something behind.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # as pytest has it: the stage is that of the tests

from acceptance.chaos import Chaos, Tally  # noqa: E402
from acceptance.stage import Stage, write_cards  # noqa: E402
from services import PostgresServer, postgres_programs  # noqa: E402


def main() -> int:
    """Kill, judge and print; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--kills", type=int, default=200, help="how many, over both databases")
    parser.add_argument("--seed", type=int, help="repeats who is killed and when")
    chosen = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if chosen.seed is None else chosen.seed
    print(f"seed {seed}", flush=True)

    def show(tally: Tally) -> None:
        if tally.kills.total() % 10 == 0:
            print(f"  {tally.kills.total()} kills in {tally.seconds:.0f} s", flush=True)

    try:
        _chaos(chosen.kills, seed, show)
    except AssertionError as error:
        print(error)
        return 1
    return 0


def _chaos(kills: int, seed: int, show: Callable[[Tally], None]) -> None:
    with tempfile.TemporaryDirectory(prefix="kinoloom-chaos-") as folder:
        place = Path(folder)
        write_cards(place / "cards")
        on_sqlite = kills // 2
        with Stage(place / "sqlite", place / "cards") as stage:
            print("SQLite:    ", Chaos(stage, seed).run(on_sqlite, show), flush=True)
        server = PostgresServer(postgres_programs())
        try:
            server.start()
            url = server.create()
            with Stage(place / "postgres", place / "cards", database_url=url) as stage:
                chaos = Chaos(stage, seed, workers=("anna", "berta"))
                print("PostgreSQL:", chaos.run(kills - on_sqlite, show), flush=True)
        finally:
            server.stop()


if __name__ == "__main__":
    sys.exit(main())
