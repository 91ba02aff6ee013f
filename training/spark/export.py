"""How do the trained weights become the model that Kinoloom ships?

    python -m training.spark.export

Writes the averaged weights as a diffusers LTX repository in half precision, with its tokenizer and
scheduler, to the package's folder. The model card beside it is written by hand from the figures of
``evaluate``.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, LTXConditionPipeline

from training.spark import tokenizer as words
from training.spark import vae as vae_module
from training.spark.transformer import build, measure_latents

TARGET = vae_module.SHIPPED
COMPONENTS = ("vae", "transformer", "text_encoder", "tokenizer", "scheduler")
LIMIT = 25 * 1024 * 1024


def assemble(folder: Path, name: str = "transformer") -> LTXConditionPipeline:
    """The pipeline with the averaged weights of the checkpoints in `folder`."""
    vae = vae_module.load(folder).eval()
    measure_latents(vae)
    transformer, text_encoder = build()
    state = torch.load(folder / f"{name}.pt", map_location="cpu", weights_only=True)["averages"]
    transformer.load_state_dict(state["transformer"])
    text_encoder.load_state_dict(state["text_encoder"])
    return LTXConditionPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),  # shift 1: the card gives the timesteps
        vae=vae,
        text_encoder=text_encoder.eval(),
        tokenizer=words.build(),
        transformer=transformer.eval(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("training/spark/out"))
    parser.add_argument(
        "--name", default="transformer", help="name of the transformer's checkpoint"
    )
    parser.add_argument("--to", type=Path, default=TARGET)
    args = parser.parse_args()
    pipe = assemble(args.out, args.name).to(dtype=torch.float16)
    for component in COMPONENTS:
        shutil.rmtree(args.to / component, ignore_errors=True)
    pipe.save_pretrained(args.to, safe_serialization=True)
    for file in (args.to / "model_index.json", args.to / "tokenizer" / "tokenizer_config.json"):
        # The name under which every transformers release since 4 knows this class.
        text = file.read_text(encoding="utf-8")
        file.write_text(text.replace("TokenizersBackend", "PreTrainedTokenizerFast"), "utf-8")
    size = sum(f.stat().st_size for f in args.to.rglob("*") if f.is_file())
    print(f"{args.to}: {size / 1e6:.1f} MB")
    if size > LIMIT:
        raise SystemExit(f"larger than {LIMIT / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
