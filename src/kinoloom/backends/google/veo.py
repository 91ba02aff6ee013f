"""How does Veo make a clip, on Vertex AI?

An order is a long-running operation in a region; the regions of the settings are tried in their
order, and the next one only after an answer which says that the one before did not take the order.
With a bucket, Vertex AI writes the video into a folder named after the order, where it is found
even if nobody heard the answer; without one it comes within the answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from kinoloom.backends.base import Fetched, Order, RemoteStatus, Ticket
from kinoloom.backends.google import shape, storage
from kinoloom.backends.google.access import Access
from kinoloom.backends.google.answers import code_word, create, read, uncertain
from kinoloom.backends.google.files import write_video
from kinoloom.backends.remote.error_table import ErrorTable, shown
from kinoloom.catalog.card import ModelCard
from kinoloom.errors import (
    ContentRejected,
    Forbidden,
    InvalidRequest,
    KinoloomError,
    ModelNotFound,
    NetworkFailed,
    NotFound,
    QuotaExceeded,
    RateLimited,
    Uncertain,
)

if TYPE_CHECKING:
    from google.genai import Client, types

PICTURE_BYTES = 20_000_000
"""What a picture may have, 20 MB: https://cloud.google.com/vertex-ai/generative-ai/docs/models/veo."""
_SEED_BITS = 32
_GONE = "Vertex AI does not know this operation any more."
_REGION = re.compile(r"/locations/([^/]+)/")
_OF_THE_REGION = re.compile(r"(?i)\b(region|location)s?\b")
_CODE = re.compile(r"\b\d{8}\b")


class Veo:
    """Veo on Vertex AI. Threads may share it."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def submit(self, order: Order, card: ModelCard) -> Ticket:
        """Hand in an operation, in the first region that takes it."""
        shape.check(order, card)
        refusals: list[tuple[str, KinoloomError]] = []
        regions = self._access.settings.locations
        for region in regions:
            client = self._access.vertex(region)
            try:
                name = self._create(client, order, card)
            except KinoloomError as error:
                refusals.append((region, error))
                if not _next_may_take_it(error):
                    raise
                continue
            seed = shape.seed(order.take, _SEED_BITS)
            return Ticket(name, region, data={} if seed == order.take.seed else {"seed": seed})
        raise _best_refusal(refusals)

    def find(self, order: Order) -> Ticket | None:
        """The finished video of an order in its folder of the bucket.

        Raises Uncertain where there is no bucket, or nothing in it: the order may be under way.
        """
        folder = self._folder(order)
        if folder is not None:
            found = storage.videos_under(folder, self._access.token())
            if found:
                return Ticket(found[0])
        cause = (
            "It lists no operations, and without a bucket no order leaves a trace."
            if folder is None
            else f"It lists no operations, and there is no video in {folder} yet."
        )
        raise Uncertain(
            "Vertex AI cannot be asked whether it accepted an order.",
            cause=cause,
            hints=self._hints(order),
        )

    def poll(self, ticket: Ticket, card: ModelCard) -> RemoteStatus:
        """How far the operation is; Vertex AI gives no percentage."""
        if _is_file(ticket):
            return RemoteStatus("succeeded")
        operation = self._operation(ticket)
        if not operation.done:
            return RemoteStatus("running", detail="running")
        error = _failure(operation, card)
        if error is not None:
            return RemoteStatus("failed", error=error)
        return RemoteStatus("succeeded", detail=_filtered(operation))

    def fetch(self, ticket: Ticket, card: ModelCard, folder: Path) -> Fetched:
        """Write the video into `folder`."""
        target = folder / "google.mp4"
        notes: list[str] = []
        if "seed" in ticket.data:
            notes.append(f"Veo takes seeds below 2^32: {ticket.data['seed']} was used.")
        if _is_file(ticket):
            storage.fetch(ticket.remote_id, self._access.token(), target)
        else:
            operation = self._operation(ticket)
            error = _failure(operation, card) if operation.done else NotFound("It is not done yet.")
            if error is not None:
                raise error
            video = _videos(operation)[0]
            if video.video_bytes:
                write_video(video.video_bytes, target)
            else:
                storage.fetch(str(video.uri), self._access.token(), target)
            filtered = _filtered(operation)
            notes += [filtered] if filtered else []
        return Fetched(target, versions={"model": str(card.source.service)}, notes=tuple(notes))

    def cancel(self, ticket: Ticket, card: ModelCard) -> RemoteStatus:
        """What the operation is: Vertex AI cannot stop it, and charges what it makes."""
        status = self.poll(ticket, card)
        if status.state == "running":
            return RemoteStatus("running", detail="Vertex AI cannot stop it; it will be charged")
        return status

    def check(self, model: str) -> None:
        """Raise what keeps the credentials from being used: one free call that asks for a model."""
        client = self._access.vertex(self._access.settings.locations[0])
        read(
            lambda: client.models.get(model=f"publishers/google/models/{model}"),
            gone=f"Vertex AI does not have {model} in {self._access.settings.locations[0]}.",
        )

    def _create(self, client: Client, order: Order, card: ModelCard) -> str:
        """The name of the operation that one call made."""
        from google.genai import types

        take = order.take

        def image(name: str) -> types.Image | None:
            file = order.inputs.get(name)
            return None if file is None else _image(file, order, card)

        references = [
            types.VideoGenerationReferenceImage(
                image=_image(file, order, card),
                reference_type=types.VideoGenerationReferenceType.ASSET,
            )
            for file in shape.references(order)
        ]
        config = types.GenerateVideosConfig(
            number_of_videos=1,
            duration_seconds=shape.seconds(take),
            aspect_ratio=shape.aspect_ratio(take),
            resolution=shape.resolution(take),
            seed=shape.seed(take, _SEED_BITS),
            generate_audio=order.audio,
            negative_prompt=take.negative or None,
            last_frame=image("last_image"),
            reference_images=references or None,
            output_gcs_uri=self._folder(order),
            labels={"kinoloom-order": order.key},  # in the project's bill
        )
        source = types.GenerateVideosSource(prompt=take.prompt or None, image=image("image"))
        hints = self._hints(order)
        operation = create(
            lambda: client.models.generate_videos(
                model=str(card.source.service), source=source, config=config
            ),
            hints=hints,
        )
        if not operation.name:
            raise uncertain("It answered without the name of an operation.", hints)
        return operation.name

    def _operation(self, ticket: Ticket) -> types.GenerateVideosOperation:
        from google.genai import types

        found = _REGION.search(ticket.remote_id)
        region = ticket.endpoint or (found[1] if found else self._access.settings.locations[0])
        client = self._access.vertex(region)
        asked = types.GenerateVideosOperation()
        asked.name = ticket.remote_id
        return read(lambda: client.operations.get(asked), gone=_GONE)

    def _folder(self, order: Order) -> str | None:
        """Where Vertex AI writes this order's video."""
        bucket = self._access.settings.bucket
        return None if bucket is None else f"{bucket.rstrip('/')}/{order.key}/"

    def _hints(self, order: Order) -> tuple[str, ...]:
        folder = self._folder(order)
        look = (
            f"Look for a video in {folder} after some minutes"
            if folder is not None
            else "Look in the project's bill, where its label kinoloom-order is"
            f" {order.key} (with backends.google.bucket it could be found by itself)"
        )
        return (f"{look}, then: kinoloom jobs resolve JOB",)


def _image(file: Path, order: Order, card: ModelCard) -> types.Image:
    from google.genai import types

    data = shape.picture(file, order, card, PICTURE_BYTES)
    return types.Image(image_bytes=data, mime_type="image/png")


def _is_file(ticket: Ticket) -> bool:
    """Whether the ticket names the finished video itself, as `find` and users may."""
    return ticket.remote_id.startswith("gs://")


def _next_may_take_it(error: KinoloomError) -> bool:
    """Whether an error is of one region only, and says that it did not take the order."""
    if isinstance(error, ModelNotFound | RateLimited | QuotaExceeded | NetworkFailed):
        return True
    of_a_region = bool(_OF_THE_REGION.search(error.cause))
    return of_a_region and isinstance(error, Forbidden | InvalidRequest)


def _best_refusal(refusals: list[tuple[str, KinoloomError]]) -> KinoloomError:
    """Of what all regions answered, what is worth waiting for, else the first; all are told."""
    waiting = [error for _, error in refusals if isinstance(error, RateLimited)]
    best = waiting[0] if waiting else refusals[0][1]
    if len(refusals) > 1:
        told = "; ".join(f"{region}: {error.message}" for region, error in refusals)
        best.cause = shown(f"{best.cause} Asked in {told}".strip())
    return best


def _videos(operation: types.GenerateVideosOperation) -> list[types.Video]:
    made = operation.response.generated_videos if operation.response is not None else None
    videos = [each.video for each in made or [] if each.video is not None]
    return [video for video in videos if video.video_bytes or video.uri]


def _failure(operation: types.GenerateVideosOperation, card: ModelCard) -> KinoloomError | None:
    """Why an operation that is done gave no video; None: it gave one."""
    if operation.error:
        text = str(operation.error.get("message") or "")
        if _CODE.search(text):
            return _rejection([text], card)
        code = code_word(operation.error.get("code"))
        return ErrorTable.of("google").error(status="failed", code=code, text=text)
    if _videos(operation):
        return None
    response = operation.response
    reasons = list(response.rai_media_filtered_reasons or []) if response is not None else []
    if reasons or (response is not None and response.rai_media_filtered_count):
        return _rejection(reasons, card)
    return KinoloomError(
        "Vertex AI is done and gave no video.",
        cause="It names no error and no filter.",
        hints=["Try again with another seed."],
    )


def _rejection(reasons: list[str], card: ModelCard) -> ContentRejected:
    """What the filters held back, by the support codes that Google gives."""
    words = " ".join(reasons)
    codes = list(dict.fromkeys(_CODE.findall(words)))
    known = support_codes()
    about = list(dict.fromkeys(known[code] for code in codes if code in known))
    return ContentRejected(
        f"Google's filters held back the clip of {card.title}"
        + (f": {', '.join(about)}." if about else "."),
        cause=shown(words),
        hints=["Change the words or the pictures: its filters read both, and the result."],
        details={"codes": codes, "about": about},
    )


def _filtered(operation: types.GenerateVideosOperation) -> str:
    """What is to be said of a batch of which the filters let only a part through."""
    response: Any = operation.response
    count = (response.rai_media_filtered_count or 0) if response is not None else 0
    return f"Google's filters held back {count} more of the batch." if count else ""


@cache
def support_codes() -> Mapping[str, str]:
    """What each of Google's support codes is about."""
    file = resources.files("kinoloom.backends.google") / "support_codes.yaml"
    groups: dict[str, list[int]] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return {str(code): about for about, codes in groups.items() for code in codes}
