"""How is one take rendered by the worker's own child process?"""

from __future__ import annotations

from pathlib import Path

from kinoloom.jobs.job_run import JobRun, Rendered
from kinoloom.jobs.record import RenderFacts
from kinoloom.planner.plan import Plan


def render_here(run: JobRun, plan: Plan, number: int, folder: Path) -> Rendered:
    """The frames of the plan's take of that number, counted from 0; rendered only once.

    Raises KinoloomError and Superseded.
    """
    name, assets = f"render:{number}", run.store.assets
    if (known := run.artefact(name)) is None:
        with run.bench.device_lock(plan.device, run.watch.over) as free:
            if not free:
                run.stop()
            answer = run.call(
                "render",
                {
                    "plan": plan.model_dump(mode="json"),
                    "number": number,
                    "folder": str(folder),
                    "inputs": run.inputs(plan),
                },
            )
        sound = None
        if answer["audio"] is not None:  # kept first: nobody finds frames without their sound
            sound = run.keep_file(f"{name}:audio", Path(answer["audio"]), "audio", {})
        kept = {"rendered": answer["rendered"], "audio": sound}
        run.keep_file(name, Path(answer["frames"]), "frames", kept, link=True)
        known = run.artefact(name)
        assert known is not None  # kept just now
    assert known.digest is not None
    sound = known.data["audio"]
    return Rendered(
        assets.path(known.digest),
        assets.path(str(sound)) if sound is not None else None,
        RenderFacts.from_dict(known.data["rendered"]),
    )
