from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from kinoloom.errors import InvalidRequest, KinoloomError, ModelBroken
from kinoloom.weights.loras import check_lora, match, modules_of

Shape = tuple[int, ...]
Shapes = dict[str, Shape]

WAN: Shapes = {
    "blocks.0.attn1.to_q": (24, 24),
    "blocks.0.attn1.to_out.0": (24, 24),
    "blocks.0.attn2.to_k": (24, 24),
    "blocks.0.ffn.net.0.proj": (96, 24),
    "blocks.0.ffn.net.2": (24, 96),
    "condition_embedder.time_embedder.linear_1": (24, 8),
    "proj_out": (64, 24),
}
FLUX: Shapes = {
    "transformer_blocks.0.attn.to_q": (16, 16),
    "transformer_blocks.0.attn.to_k": (16, 16),
    "transformer_blocks.0.attn.to_v": (16, 16),
    "single_transformer_blocks.3.attn.to_q": (16, 16),
    "single_transformer_blocks.3.attn.to_k": (16, 16),
    "single_transformer_blocks.3.attn.to_v": (16, 16),
    "single_transformer_blocks.3.proj_mlp": (64, 16),
    "single_transformer_blocks.3.proj_out": (16, 80),
}
UNET: Shapes = {
    "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q": (8, 8),
    "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0": (8, 8),
    "down_blocks.1.resnets.0.conv1": (8, 4, 3, 3),
    "down_blocks.0.motion_modules.0.transformer_blocks.0.attn1.to_q": (8, 8),
}


def write(file: Path, shapes: Shapes, cut: int = 0) -> Path:
    """A safetensors file of zeros; `cut` bytes shorter than it says."""
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * _count(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(struct.pack("<Q", len(text)) + text + bytes(end - cut))
    return file


def _count(shape: Shape) -> int:
    count = 1
    for side in shape:
        count *= side
    return count


def model(folder: Path, modules: Shapes) -> Path:
    """The folder of a transformer with these modules, in two shards."""
    weights = {f"{name}.weight": shape for name, shape in modules.items()}
    weights |= {f"{name}.bias": shape[:1] for name, shape in modules.items()}
    half = len(weights) // 2
    for i, names in enumerate([list(weights)[:half], list(weights)[half:]]):
        shard = folder / f"diffusion_pytorch_model-0000{i + 1}-of-00002.safetensors"
        write(shard, {n: weights[n] for n in names})
    return folder


def pair(stem: str, shape: Shape, down: str, up: str, rank: int = 2) -> Shapes:
    """The two matrices of a change of a module with this shape."""
    return {f"{stem}{down}": (rank, *shape[1:]), f"{stem}{up}": (shape[0], rank, *shape[4:])}


PEFT = (".lora_A.weight", ".lora_B.weight")
KOHYA = (".lora_down.weight", ".lora_up.weight")


@pytest.mark.parametrize(
    ("modules", "stem", "ends", "targets"),
    [
        (WAN, "transformer.blocks.0.attn1.to_q", PEFT, ["blocks.0.attn1.to_q"]),
        (WAN, "blocks.0.attn1.to_q", PEFT, ["blocks.0.attn1.to_q"]),
        (WAN, "proj_out", PEFT, ["proj_out"]),
        (
            WAN,
            "base_model.model.blocks.0.attn1.to_out.0",
            (".lora_A.default.weight", ".lora_B.default.weight"),
            ["blocks.0.attn1.to_out.0"],
        ),
        (WAN, "diffusion_model.blocks.0.self_attn.q", KOHYA, ["blocks.0.attn1.to_q"]),
        (WAN, "diffusion_model.blocks.0.self_attn.o", PEFT, ["blocks.0.attn1.to_out.0"]),
        (WAN, "diffusion_model.blocks.0.ffn.0", KOHYA, ["blocks.0.ffn.net.0.proj"]),
        (WAN, "lora_unet_blocks_0_cross_attn_k", KOHYA, ["blocks.0.attn2.to_k"]),
        (WAN, "lora_unet_blocks_0_ffn_2", KOHYA, ["blocks.0.ffn.net.2"]),
        (
            WAN,
            "diffusion_model.time_embedding.0",
            KOHYA,
            ["condition_embedder.time_embedder.linear_1"],
        ),
        (WAN, "diffusion_model.head.head", KOHYA, ["proj_out"]),
        (
            FLUX,
            "lora_unet_double_blocks_0_img_attn_qkv",
            KOHYA,
            [f"transformer_blocks.0.attn.to_{p}" for p in "qkv"],
        ),
        (
            FLUX,
            "lora_unet_single_blocks_3_linear1",
            KOHYA,
            [
                *(f"single_transformer_blocks.3.attn.to_{p}" for p in "qkv"),
                "single_transformer_blocks.3.proj_mlp",
            ],
        ),
        (
            FLUX,
            "diffusion_model.single_blocks.3.linear2",
            PEFT,
            ["single_transformer_blocks.3.proj_out"],
        ),
        (
            UNET,
            "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q",
            KOHYA,
            ["down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"],
        ),
        (
            UNET,
            "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_out_0",
            KOHYA,
            ["down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0"],
        ),
        (UNET, "lora_unet_input_blocks_4_0_in_layers_2", KOHYA, ["down_blocks.1.resnets.0.conv1"]),
        (
            UNET,
            "unet.down_blocks.0.motion_modules.0.transformer_blocks.0.attn1.processor.to_q",
            ("_lora.down.weight", "_lora.up.weight"),
            ["down_blocks.0.motion_modules.0.transformer_blocks.0.attn1.to_q"],
        ),
    ],
)
def test_every_trainers_names_are_understood(
    tmp_path: Path, modules: Shapes, stem: str, ends: tuple[str, str], targets: list[str]
) -> None:
    rows = sum(modules[t][0] for t in targets)
    shape = (rows, *modules[targets[0]][1:])
    lora = write(tmp_path / "look.safetensors", pair(stem, shape, *ends))
    folder = model(tmp_path / "transformer", modules)
    assert modules_of(folder) == modules
    check_lora(lora, folder)
    shapes = pair(stem, shape, *ends) | {f"{stem}.alpha": (), f"{stem}.diff_b": (rows,)}
    found = match("look", shapes, modules)
    (change,) = found.changes
    assert list(change.targets) == targets
    assert (change.down, change.up) == (stem + ends[0], stem + ends[1])
    assert (change.alpha, change.bias) == (f"{stem}.alpha", f"{stem}.diff_b")
    wrong = pair(stem, (rows + 1, *shape[1:]), *ends)
    with pytest.raises(InvalidRequest, match="another size"):
        match("look", wrong, modules)


def test_a_motion_loras_modules_may_lie_in_the_adapters_folder(tmp_path: Path) -> None:
    motion = {k: v for k, v in UNET.items() if "motion" in k}
    unet = model(tmp_path / "unet", {k: v for k, v in UNET.items() if "motion" not in k})
    adapter = model(tmp_path / "motion_adapter", motion)
    lora = write(tmp_path / "zoom.safetensors", pair(f"unet.{next(iter(motion))}", (8, 8), *PEFT))
    check_lora(lora, unet, adapter)
    with pytest.raises(InvalidRequest):
        check_lora(lora, unet)


def test_what_changes_a_text_encoder_or_whole_norms_is_left_out() -> None:
    shapes = (
        pair("diffusion_model.blocks.0.self_attn.q", (24, 24), *KOHYA)
        | pair("lora_te1_text_model_encoder_layers_0_mlp_fc1", (9, 9), *KOHYA)
        | {
            "diffusion_model.blocks.0.norm3.diff": (24,),
            "diffusion_model.blocks.0.norm3.diff_b": (24,),
            "diffusion_model.time_projection.1.diff_b": (24,),
        }
    )
    found = match("look", shapes, WAN)
    assert [c.targets for c in found.changes] == [("blocks.0.attn1.to_q",)]
    assert len(found.ignored) == 5
    assert all("te1" in name or "diff" in name for name in found.ignored)


FINE = pair("transformer.blocks.0.attn1.to_q", (24, 24), *PEFT)


@pytest.mark.parametrize(
    ("shapes", "says"),
    [
        (FINE | pair("transformer.blocks.7.attn1.to_q", (24, 24), *PEFT), "lacks"),
        (pair("transformer.transformer_blocks.0.attn1.to_q", (24, 24), *PEFT), "lacks"),
        (FINE | pair("blocks.0.attn2.to_k", (32, 24), *PEFT), "another size"),
        (pair("blocks.0.attn2.to_k", (24, 32), *PEFT), "another size"),
        (FINE | {"blocks.0.attn2.to_k.lora_A.weight": (2, 24)}, "incomplete"),
        (FINE | {"blocks.0.attn1.to_q.dora_scale": (24, 1)}, "not supported .dora"),
        ({"lora_unet_blocks_0_self_attn_q.hada_w1_a": (24, 2)}, "not supported .hada"),
        ({"lora_unet_blocks_0_self_attn_q.lokr_w1": (24, 2)}, "not supported .lokr"),
        ({"blocks.0.attn1.to_q.weight": (24, 24)}, "is no LoRA"),
        ({}, "changes nothing"),
        (pair("lora_te_text_model_0_fc1", (24, 24), *KOHYA), "only changes a text encoder"),
    ],
)
def test_what_does_not_belong_to_the_model_is_refused(
    tmp_path: Path, shapes: Shapes, says: str
) -> None:
    lora = write(tmp_path / "look.safetensors", shapes)
    with pytest.raises(InvalidRequest, match=says) as caught:
        check_lora(lora, model(tmp_path / "transformer", WAN))
    assert caught.value.hints
    assert caught.value.problems[0].field == "loras"
    assert "look.safetensors" in caught.value.message


@pytest.mark.parametrize("suffix", [".pt", ".ckpt", ".bin", ".PTH"])
def test_a_pickle_is_refused_unopened(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(ModelBroken, match="not opened") as caught:
        check_lora(tmp_path / f"no such file{suffix}")
    assert "safetensors" in caught.value.hints[0]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: write(file, FINE, cut=10),
        lambda file: file.write_bytes(b"PK\x03\x04" + bytes(100)),  # a pickle under another name
        lambda file: file.write_bytes(b""),
        lambda file: None,
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, spoil) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "look.safetensors"
    spoil(file)
    with pytest.raises(ModelBroken) as caught:
        check_lora(file)
    assert "look.safetensors" in caught.value.message
    assert caught.value.hints


def test_without_a_place_only_the_file_is_looked_at(tmp_path: Path) -> None:
    check_lora(write(tmp_path / "look.safetensors", pair("anything", (3, 4), *PEFT)))
    with pytest.raises(KinoloomError):
        check_lora(write(tmp_path / "model.safetensors", {"anything.weight": (3, 4)}))
