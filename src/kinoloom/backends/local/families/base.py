"""What does the local backend ask of a family of models?

`Family` answers for the usual pipeline: text encoded by ``encode_prompt``, a callback after each
step, latents [B, C, F, h, w] in it. A family overrides what it does differently, in one small
module that ends with ``FAMILY = TheFamily()``; the card names the module. Shared code never asks
which family it has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image

from kinoloom.backends.base import Audio, Frame, Inputs, Take


class Family:
    """How one family's pipelines are called."""

    text_components: ClassVar[tuple[str, ...]] = ("text_encoder", "tokenizer")
    """Components that only `encode` uses: with cached embeddings they are never loaded."""

    encoding_needs: ClassVar[tuple[str, ...]] = ()
    """Components without which the pipeline cannot even be put together to encode words."""

    has_callback: ClassVar[bool] = True
    """Whether the pipeline takes ``callback_on_step_end``; without it the steps are watched at the
    scheduler (see `backend`)."""

    def prepare(self, pipe: Any, take: Take, inputs: Inputs) -> None:
        """Change the loaded pipeline for this take, beyond the schedule's shift.

        Called before every render; it must undo what an earlier take did. ``pipe.parts`` maps the
        names in the card's `source.parts` to where they lie on this disk.
        """

    def encode_key(
        self, pipe: Any, take: Take, fixed: Mapping[str, Any]
    ) -> Mapping[str, Any] | None:
        """What besides the words decides the embeddings, as JSON-ready data; None: do not cache."""
        return token_limit(fixed)

    def encode(self, pipe: Any, take: Take, fixed: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """The prompt's embeddings, as arguments of the pipeline's call.

        `fixed` are the card's fixed arguments of that call: some of them, such as
        ``max_sequence_length``, decide how the prompt is encoded.
        """
        guided = take.guidance > 1
        positive, negative = pipe.encode_prompt(
            prompt=take.prompt,
            negative_prompt=take.negative,
            do_classifier_free_guidance=guided,
            device=pipe._execution_device,
            **token_limit(fixed),
        )
        found = {"prompt_embeds": positive}
        return found | {"negative_prompt_embeds": negative} if guided else found

    def arguments(self, pipe: Any, take: Take, inputs: Inputs) -> dict[str, Any]:
        """The call's other arguments: size, length, guidance, steps and media.

        The card's fixed arguments and schedule, the embeddings, generator, callback and output type
        are added by the backend.
        """
        return {
            "width": take.width,
            "height": take.height,
            "num_frames": take.frames,
            "guidance_scale": take.guidance,
            "num_inference_steps": take.steps,
        } | self.media(pipe, take, inputs)

    def media(self, pipe: Any, take: Take, inputs: Inputs) -> dict[str, Any]:
        """The pictures as the pipeline takes them."""
        found: dict[str, Any] = {}
        if inputs.image is not None:
            found["image"] = picture(inputs.image)
        if inputs.last_image is not None:
            found["last_image"] = picture(inputs.last_image)
        return found

    def call(self, pipe: Any, arguments: dict[str, Any]) -> Any:
        """Run the pipeline with all its arguments; gives its output."""
        return pipe(**arguments)

    def steps(self, pipe: Any, take: Take) -> int:
        """Scheduler steps of the whole render, those of every window together."""
        return take.steps

    def latents(self, pipe: Any, take: Take, latents: torch.Tensor) -> torch.Tensor:
        """The callback's latents as raw ones of the VAE, [C, F, h, w], for the preview."""
        return latents[0].float()

    def frames(self, output: Any) -> np.ndarray[Any, Any]:
        """The pipeline's output as float frames [T, H, W, 3] in 0..1."""
        return np.asarray(output.frames[0])

    def audio(self, pipe: Any, output: Any) -> Audio | None:
        """The sound in the output, if there is any."""
        return None


def token_limit(fixed: Mapping[str, Any]) -> dict[str, Any]:
    """The fixed argument that says how many tokens a prompt may have, if the card sets it."""
    return {k: v for k, v in fixed.items() if k == "max_sequence_length"}


def picture(frame: Frame) -> Image.Image:
    """A frame as the PIL image that pipelines take."""
    return Image.fromarray(frame)
