"""What is tried when an attempt at a clip failed, within the consent of the user?

Words that a service rejected may be changed, at most twice and only if the user said so. Then the
next of the plan's alternatives is taken: one that is free freely, one that costs only where the
user set a budget, and for rejected content none unless asked.
"""

from __future__ import annotations

from kinoloom.errors import ContentRejected, KinoloomError
from kinoloom.film.fallback import differs
from kinoloom.jobs.attempts import Attempts
from kinoloom.jobs.dead import live_workers
from kinoloom.jobs.job_run import JobRun, Superseded
from kinoloom.jobs.planning import load_catalog
from kinoloom.jobs.queues import OWN, queue_for
from kinoloom.jobs.replanning import planned_again
from kinoloom.jobs.reword import Reworder
from kinoloom.planner.consent import check_consent
from kinoloom.planner.plan import Plan

REWORDINGS = 2
"""How often words are changed for one job."""


class Recovery:
    """Decides for one run of a job."""

    def __init__(self, run: JobRun, attempts: Attempts) -> None:
        self._run = run
        self._attempts = attempts

    def after(self, plan: Plan, error: KinoloomError) -> Plan:
        """The plan to go on with, written down. Raises `error` when there is none, and Superseded,
        when the job now belongs to another queue."""
        calls = self._run.store.remote_calls.of_job(self._run.job.id)
        underway = any(call.state in ("sent", "accepted", "uncertain") for call in calls)
        if underway or self._run.watch.over():  # never two orders for one clip
            raise error
        again = self._reworded(plan, error) or self._elsewhere(plan, error)
        if again is None:
            raise error
        self._move(again)
        return again

    def _reworded(self, plan: Plan, error: KinoloomError) -> Plan | None:
        """The plan in other words, where these were rejected and others are allowed."""
        asked, settings = plan.request.reword, self._run.settings
        allowed = settings.reword.enabled if asked is None else asked
        if not isinstance(error, ContentRejected) or not plan.remote or not allowed:
            return None
        card, tried = load_catalog(settings).get(plan.model), self._attempts.rewordings
        if card.remote is None or not card.remote.rewording or tried >= REWORDINGS:
            return None
        reason = error.cause or error.message
        words = Reworder(settings).reword(plan.prompt, tried + 1, reason)
        if not words or words == plan.prompt:
            return None
        try:
            again = planned_again(plan, settings, self._run.store, prompt=words)
            check_consent(again, settings)
        except KinoloomError as other:
            self._run.telling.log(f"Other words do not help: {other.message}")
            return None
        self._attempts.follow(plan, error, again, prompt=plan.prompt, reworded=words)
        self._run.telling.log(
            f"{plan.backend} rejected the words: {error.message} It is tried with: {words}"
        )
        return again

    def _elsewhere(self, plan: Plan, error: KinoloomError) -> Plan | None:
        """The plan for the next alternative that the user's consent covers."""
        asked, rule = plan.request.fallback, self._run.settings.fallback
        answer = error.recovery.fall_back
        if not (rule.enabled if asked is None else asked):
            return None
        if answer == "no" or (answer == "ask" and not rule.after_rejection):
            return None
        for position, other in enumerate(plan.alternatives):
            try:
                again = planned_again(
                    plan,
                    self._run.settings,
                    self._run.store,
                    model=other.model,
                    backend=other.backend,
                    alternatives=plan.alternatives[position + 1 :],
                )
                check_consent(again, self._run.settings)
            except KinoloomError as problem:
                self._run.telling.log(f"{other.model} is no way out: {problem.message}")
                continue
            if self._run.job.film is not None and (why := differs(plan, again)) is not None:
                self._run.telling.log(f"{other.model} is no way out for a film: {why}.")
                continue
            if not self._may_cost(again):
                self._run.telling.log(f"{other.model} costs {again.cost}, and no budget is set.")
                continue
            self._attempts.follow(plan, error, again)
            self._run.telling.log(
                f"{plan.model} on {plan.backend} failed: {error.message}"
                f" Going on with {again.model} on {again.backend} ({again.cost})."
            )
            return again
        return None

    def _may_cost(self, plan: Plan) -> bool:
        """Whether the user agreed to spend what a plan costs that nobody asked for by name."""
        if plan.cost.free:
            return True
        consent = self._run.settings.budgets.any or plan.request.max_cost is not None
        known = plan.cost.amount is not None or plan.request.unknown_price
        return consent and known

    def _move(self, plan: Plan) -> None:
        """Give the job to the queue of its new plan, where somebody serves that one.

        Raises Superseded then: another run makes the clip.
        """
        run = self._run
        run.store.remote_calls.release(run.job.id)  # for takes that are not ordered any more
        if run.job.queue.startswith(OWN):
            return
        workers = [w for w in live_workers(run.store, run.settings) if w.queues]
        queue = queue_for(plan, workers)
        served = {q.name for worker in workers for q in worker.queues}
        if queue == run.job.queue or queue not in served:
            return
        run.store.jobs.move(
            run.job.id,
            "queued",
            expect=["running"],
            run=run.job.run,
            worker=run.bench.worker,
            run_to=run.job.run + 1,
            worker_to=None,
            queue=queue,
            detail={"reason": f"it goes on with {plan.model} on {plan.backend}"},
        )
        raise Superseded
