from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.comfyui_validation import definitions, validate, without
from fakes.orders import order_of
from kinoloom.backends.comfyui import workflow_file
from kinoloom.backends.comfyui.graphs import build
from kinoloom.backends.comfyui.object_info import ObjectInfo, missing
from kinoloom.backends.comfyui.workflow import cards, problems
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.loader import Catalog
from kinoloom.errors import InvalidMedia, InvalidRequest, ModelNotFound

CATALOG = Catalog.load()
INFO = definitions("new")


def graph_of(card: str, **uploads: str) -> dict[str, Any]:
    """A graph as ComfyUI would export it: one of ours."""
    model = CATALOG.get(card)
    graph = build(order_of(model), model, ObjectInfo.of(INFO), uploads)
    for number, node in graph.items():
        node["_meta"] = {"title": f"Node {number}"}
    return graph


WORDS = graph_of("comfyui-wan-2.1-t2v-1.3b")
PICTURE = graph_of("comfyui-wan-2.1-i2v-14b-480p", image="example.png")
SAMPLER = next(n for n, node in WORDS.items() if node["class_type"] == "KSampler")
LATENT = next(n for n, node in WORDS.items() if node["class_type"] == "EmptyHunyuanLatentVideo")
TEXT, NEGATIVE = (n for n, node in WORDS.items() if node["class_type"] == "CLIPTextEncode")
SAVER = str(len(WORDS))
BOUND: dict[str, Any] = {
    "prompt": f"{TEXT}.text",
    "negative": f"{NEGATIVE}.text",
    "seed": [f"{SAMPLER}.seed"],
    "width": f"{LATENT}.width",
    "height": f"{LATENT}.height",
    "frames": f"{LATENT}.length",
    "steps": f"{SAMPLER}.steps",
    "guidance": f"{SAMPLER}.cfg",
}
RULES: dict[str, Any] = {
    "sizes": {
        "multiple_of": 16,
        "minimum": 256,
        "maximum": 1280,
        "native": [[832, 480]],
        "default": [832, 480],
    },
    "frames": {"multiple": 4, "offset": 1, "minimum": 17, "maximum": 81, "default": 81},
}


def write(folder: Path, name: str, graph: Any = WORDS, **fields: Any) -> Path:
    text = graph if isinstance(graph, str) else json.dumps(graph)
    (folder / f"{name}.json").write_text(text, encoding="utf-8")
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump({"inputs": BOUND} | fields), encoding="utf-8")
    return file


def card_in(folder: Path) -> ModelCard:
    assert problems(folder) == []
    (card,) = cards(folder)
    return card


def mistakes(folder: Path) -> list[tuple[str, str]]:
    """What is wrong with the one broken workflow: fields and what is allowed there."""
    assert cards(folder) == []
    (error,) = problems(folder)
    return [(p.field, p.allowed) for p in error.problems]


def test_a_workflow_becomes_a_model(tmp_path: Path) -> None:
    write(tmp_path, "My Look", title="My look", **RULES)
    card = card_in(tmp_path)
    assert (card.id, card.title, card.backend) == ("comfyui-my-look", "My look", "comfyui")
    assert card.tasks == ("t2v",)
    assert card.price == "free"
    assert card.negative
    assert card.sizes.default == (832, 480)
    assert card.frames.allows(33)
    assert (card.fps.minimum, card.fps.default, card.fps.maximum) == (16, 16, 16)
    assert (card.steps.default, card.steps.preview, card.steps.premium) == (50, 25, 100)
    assert (card.guidance.default, card.guidance.maximum) == (5.0, 30)
    assert card.remote is not None
    assert {"KSampler", "SaveVideo"} <= set(card.remote.nodes)


def test_what_is_asked_for_stands_in_the_graph(tmp_path: Path) -> None:
    write(tmp_path, "a", **RULES)
    card, info = card_in(tmp_path), ObjectInfo.of(INFO)
    order = order_of(card, prompt="a ball", negative="a box", frames=33, width=640, seed=5)
    graph = build(order, card, info, {})
    assert validate(graph, INFO) == (None, [SAVER], {})
    assert graph[TEXT]["inputs"]["text"] == "a ball"
    assert graph[NEGATIVE]["inputs"]["text"] == "a box"
    assert graph[SAMPLER]["inputs"]["seed"] == 5
    assert graph[LATENT]["inputs"] == {"width": 640, "height": 480, "length": 33, "batch_size": 1}
    assert graph[SAVER]["inputs"]["filename_prefix"] == f"kinoloom/{order.key}"
    # The rest is as it was.
    changed = {TEXT, NEGATIVE, SAMPLER, LATENT, SAVER}
    assert all(graph[n] == WORDS[n] for n in WORDS if n not in changed)


def test_the_file_itself_is_not_changed(tmp_path: Path) -> None:
    write(tmp_path, "a", **RULES)
    card = card_in(tmp_path)
    build(order_of(card, prompt="a ball"), card, ObjectInfo.of(INFO), {})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == WORDS


def test_one_thing_may_be_bound_to_several_inputs(tmp_path: Path) -> None:
    graph = copy.deepcopy(WORDS)
    graph["50"] = copy.deepcopy(graph[SAMPLER])
    write(tmp_path, "a", graph, inputs=BOUND | {"seed": [f"{SAMPLER}.seed", "50.seed"]}, **RULES)
    card = card_in(tmp_path)
    filled = build(order_of(card, seed=11), card, ObjectInfo.of(INFO), {})
    assert [filled[n]["inputs"]["seed"] for n in (SAMPLER, "50")] == [11, 11]


def test_what_is_not_bound_is_not_offered(tmp_path: Path) -> None:
    write(
        tmp_path, "a", inputs={"prompt": f"{TEXT}.text"}, sizes=[832, 480], frames=81, title="Set"
    )
    card = card_in(tmp_path)
    assert (card.sizes.only_native, card.sizes.native) == (True, [(832, 480)])
    assert (card.frames.minimum, card.frames.maximum) == (81, 81)
    assert (card.steps.default, card.guidance.maximum) == (0, 0)
    assert not card.negative
    assert any("No seed is bound" in note for note in card.notes)
    graph = build(order_of(card, seed=99), card, ObjectInfo.of(INFO), {})
    assert graph[SAMPLER]["inputs"] == WORDS[SAMPLER]["inputs"]


def test_without_a_rule_the_graphs_own_value_holds(tmp_path: Path) -> None:
    write(tmp_path, "a")
    card = card_in(tmp_path)
    assert (card.sizes.only_native, card.sizes.default) == (True, (832, 480))
    assert (card.frames.minimum, card.frames.default, card.frames.maximum) == (81, 81, 81)


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"inputs": {"prompt": f"{TEXT}.text"}}, {"sizes", "frames"}),
        ({"inputs": {"prompt": f"{TEXT}.text"}, "sizes": [832, 480], "frames": {}}, {"frames"}),
        ({"inputs": BOUND | {"prompt": "999.text"}}, {"inputs.prompt"}),
        ({"inputs": BOUND | {"prompt": f"{TEXT}.txt"}}, {"inputs.prompt"}),
        ({"inputs": BOUND | {"prompt": f"{SAMPLER}.steps"}}, {"inputs.prompt"}),
        ({"inputs": BOUND | {"steps": f"{SAMPLER}.scheduler"}}, {"inputs.steps"}),
        ({"inputs": BOUND | {"frames": f"{SAMPLER}.model"}}, {"inputs.frames"}),
        ({"inputs": BOUND | {"promt": f"{TEXT}.text"}}, {"inputs"}),
        ({"inputs": {}}, {"inputs"}),
        ({"inputs": BOUND | {"width": []}}, {"inputs.width"}),
        ({"inputs": None}, {"inputs"}),
        ({"inputs": "prompt"}, {"inputs"}),
        ({"inputs": {"seed": f"{SAMPLER}.seed"}, "sizes": [64, 64], "frames": 9}, {"inputs"}),
        ({"inputs": {k: v for k, v in BOUND.items() if k != "height"}}, {"inputs"}),
        ({"inputs": BOUND | {"last_image": f"{TEXT}.text"}}, {"inputs.image"}),
        ({"framse": 81}, {"framse"}),
        ({"output": 77}, {"output"}),
        ({"sizes": [832]}, {"sizes.minimum", "sizes.maximum"}),
        ({"frames": "many"}, {"frames.minimum", "frames.maximum", "frames.default"}),
        ({"fps": 500}, {"fps.default", "fps.minimum", "fps.maximum"}),
        ({"id": "My Look"}, {"id"}),
        ({"price": "cheap"}, {"price.Price", "price.literal['free']"}),
    ],
)
def test_every_mistake_is_named(tmp_path: Path, fields: dict[str, Any], wrong: set[str]) -> None:
    write(tmp_path, "a", **fields)
    found = {field for field, _ in mistakes(tmp_path)}
    assert wrong <= found
    (error,) = problems(tmp_path)
    assert str(tmp_path / "a.yaml") in error.message


def test_a_slip_gets_the_nearest_right_one(tmp_path: Path) -> None:
    write(tmp_path, "a", inputs=BOUND | {"prompt": f"{TEXT}.txt"}, ffps=16)
    (error,) = problems(tmp_path)
    assert {p.nearest for p in error.problems} == {f"{TEXT}.text", "fps"}


def test_a_connected_input_names_the_node_that_gives_it(tmp_path: Path) -> None:
    write(tmp_path, "a", inputs=BOUND | {"seed": f"{SAMPLER}.latent_image"})
    ((_, allowed),) = mistakes(tmp_path)
    assert f"node {LATENT} gives this one" in allowed


def test_a_file_of_the_editor_is_refused_with_the_way_to_export(tmp_path: Path) -> None:
    write(tmp_path, "a", {"nodes": [{"id": 1, "type": "KSampler"}], "links": [], "version": 0.4})
    ((field, allowed),) = mistakes(tmp_path)
    assert field == "format"
    assert "Export (API)" in allowed


@pytest.mark.parametrize(
    ("graph", "field"),
    [
        ("{", "file"),
        ("[" * 200_000, "file"),
        ("[]", "nodes"),
        ("{}", "nodes"),
        ({"1": []}, "1"),
        ({"1": {"inputs": {}}}, "1"),
        ({"1": {"class_type": 4, "inputs": {}}}, "1"),
        ({"1": {"class_type": "A"}}, "1.inputs"),
        ({"1": {"class_type": "A", "inputs": {"model": ["2", 0]}}}, "1.model"),
        ({"1": {"class_type": "A", "inputs": {"x": [[[[[[[[[[]]]]]]]]]]}}}, "1.x"),
        ({"1": {"class_type": "A", "inputs": {str(i): 1 for i in range(301)}}}, "1.inputs"),
        ({str(i): {"class_type": "A", "inputs": {}} for i in range(2001)}, "nodes"),
    ],
)
def test_what_is_no_graph_is_refused(tmp_path: Path, graph: Any, field: str) -> None:
    write(tmp_path, "a", graph)
    assert [name for name, _ in mistakes(tmp_path)] == [field]


@pytest.mark.parametrize(
    "path",
    [
        "../secret.png",
        "a/../../secret.png",
        "..",
        "..\\secret.png",
        "/etc/passwd",
        "~/secret.png",
        "C:\\secret.png",
        "\\\\host\\share",
    ],
)
def test_no_path_leads_out_of_the_servers_folders(tmp_path: Path, path: str) -> None:
    graph = copy.deepcopy(WORDS)
    graph["60"] = {"class_type": "VHS_LoadVideoPath", "inputs": {"video": path}}
    write(tmp_path, "a", graph)
    ((field, allowed),) = mistakes(tmp_path)
    assert field == "60.video"
    assert "below the server's own folders" in allowed


@pytest.mark.parametrize("text", ["a dog / a cat", "wait... what", "Wan/x.safetensors", "a.. b"])
def test_words_and_names_are_no_such_paths(tmp_path: Path, text: str) -> None:
    graph = copy.deepcopy(WORDS)
    graph["60"] = {"class_type": "Note", "inputs": {"text": text}}
    write(tmp_path, "a", graph)
    card_in(tmp_path)


def test_a_large_file_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflow_file, "MAX_BYTES", 100)
    write(tmp_path, "a")
    ((field, _),) = mistakes(tmp_path)
    assert field == "size"


def test_a_broken_workflow_hides_no_other(tmp_path: Path) -> None:
    write(tmp_path, "bad", "{")
    write(tmp_path, "good")
    (tmp_path / "alone.json").write_text("{}", encoding="utf-8")
    (tmp_path / "yaml.yaml").write_text("a: [", encoding="utf-8")
    (tmp_path / "notes.txt").write_text("hello", encoding="utf-8")
    assert [card.id for card in cards(tmp_path)] == ["comfyui-good"]
    told = [error.message for error in problems(tmp_path)]
    assert len(told) == 3
    assert ["alone.json" in told[0], "bad.json" in told[1], "yaml.yaml" in told[2]] == [True] * 3


def test_a_card_without_its_graph_is_told(tmp_path: Path) -> None:
    write(tmp_path, "a").with_suffix(".json").unlink()
    ((field, allowed),) = mistakes(tmp_path)
    assert field == "file"
    assert "No such file" in allowed


def test_two_workflows_cannot_share_an_id(tmp_path: Path) -> None:
    write(tmp_path, "a", id="mine")
    write(tmp_path, "b", id="mine")
    assert [card.id for card in cards(tmp_path)] == ["mine"]
    (error,) = problems(tmp_path)
    assert "b.yaml" in error.message
    assert "a.yaml" in error.problems[0].allowed


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert cards(tmp_path / "nowhere") == []
    (error,) = problems(tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in error.message


def test_a_picture_is_uploaded_and_bound(tmp_path: Path) -> None:
    loader = next(n for n, node in PICTURE.items() if node["class_type"] == "LoadImage")
    text = next(n for n, node in PICTURE.items() if node["class_type"] == "CLIPTextEncode")
    bound = {"prompt": f"{text}.text", "image": f"{loader}.image"}
    write(tmp_path, "a", PICTURE, inputs=bound, sizes=[832, 480], frames=81)
    card, info = card_in(tmp_path), ObjectInfo.of(INFO)
    assert card.tasks == ("i2v",)
    graph = build(order_of(card), card, info, {"image": "kinoloom/up.png"})
    assert graph[loader]["inputs"]["image"] == "kinoloom/up.png"
    assert validate(graph, INFO, files=["kinoloom/up.png"]).error is None
    with pytest.raises(InvalidMedia, match="image"):
        build(order_of(card), card, info, {})


def test_a_picture_that_the_server_does_not_offer_is_refused(tmp_path: Path) -> None:
    graph = copy.deepcopy(PICTURE)
    loader = next(n for n, node in graph.items() if node["class_type"] == "LoadImage")
    text = next(n for n, node in graph.items() if node["class_type"] == "CLIPTextEncode")
    graph[loader]["inputs"]["image"] = "somebody.png"
    write(tmp_path, "a", graph, inputs={"prompt": f"{text}.text"}, sizes=[832, 480], frames=81)
    card = card_in(tmp_path)
    with pytest.raises(InvalidRequest) as told:
        build(order_of(card), card, ObjectInfo.of(INFO), {})
    (problem,) = told.value.problems
    assert (problem.field, problem.value) == (f"{loader}.image", "somebody.png")
    assert "example.png" in problem.allowed


def test_files_are_found_where_they_lie_on_this_server(tmp_path: Path) -> None:
    write(tmp_path, "a", **RULES)
    card, data = card_in(tmp_path), definitions("new")
    moved = "Wan\\wan2.1_t2v_1.3B_fp16.safetensors"
    names = data["UNETLoader"]["input"]["required"]["unet_name"][0]
    names[:] = [moved if name.startswith("wan2.1_t2v_1.3B") else name for name in names]
    graph = build(order_of(card), card, ObjectInfo.of(data), {})
    assert validate(graph, data).error is None
    loader = next(n for n, node in graph.items() if node["class_type"] == "UNETLoader")
    assert graph[loader]["inputs"]["unet_name"] == moved


def test_other_files_are_found_where_they_lie_too(tmp_path: Path) -> None:
    graph = copy.deepcopy(PICTURE)
    loader = next(n for n, node in graph.items() if node["class_type"] == "LoadImage")
    text = next(n for n, node in graph.items() if node["class_type"] == "CLIPTextEncode")
    write(tmp_path, "a", graph, inputs={"prompt": f"{text}.text"}, sizes=[832, 480], frames=81)
    card, data = card_in(tmp_path), definitions("new")
    data["LoadImage"]["input"]["required"]["image"][0] = ["shots/example.png"]
    filled = build(order_of(card), card, ObjectInfo.of(data), {})
    assert filled[loader]["inputs"]["image"] == "shots/example.png"


def test_only_the_workflows_own_nodes_are_needed(tmp_path: Path) -> None:
    graph = copy.deepcopy(PICTURE)
    loader = next(n for n, node in graph.items() if node["class_type"] == "LoadImage")
    text = next(n for n, node in graph.items() if node["class_type"] == "CLIPTextEncode")
    saver, images = str(len(graph)), str(len(graph) - 2)
    graph[loader]["class_type"] = "LoadFromCloud"
    graph[saver] = {"class_type": "SaveToCloud", "inputs": {"images": [images, 0]}}
    del graph[str(len(graph) - 1)]
    bound = {"prompt": f"{text}.text", "image": f"{loader}.image"}
    write(tmp_path, "a", graph, inputs=bound, sizes=[832, 480], frames=81, fps=16)
    card = card_in(tmp_path)
    gone = ("LoadImage", "SaveVideo", "CreateVideo", "SaveWEBM", "VHS_VideoCombine")
    data = without(INFO, *gone)
    data["LoadFromCloud"] = INFO["LoadImage"]
    data["SaveToCloud"] = {"input": {"required": {"images": ["IMAGE"]}}, "output_node": True}
    assert missing(card, ObjectInfo.of(data)) == ()
    filled = build(order_of(card), card, ObjectInfo.of(data), {"image": "up.png"})
    assert filled[loader]["inputs"]["image"] == "up.png"


def test_missing_nodes_and_files_are_known_before_queueing(tmp_path: Path) -> None:
    write(tmp_path, "a", **RULES)
    card = card_in(tmp_path)
    left = ObjectInfo.of(without(INFO, "ModelSamplingSD3", "wan_2.1_vae.safetensors"))
    lacks = {(x.what, x.name.partition(" ")[2] or x.name, x.folder) for x in missing(card, left)}
    assert lacks == {("node", "ModelSamplingSD3", ""), ("file", "VAELoader.vae_name", "vae")}
    with pytest.raises(ModelNotFound, match=card.id):
        build(order_of(card), card, left, {})


def test_a_choice_that_the_server_has_not_is_refused(tmp_path: Path) -> None:
    graph = copy.deepcopy(WORDS)
    graph[SAMPLER]["inputs"]["scheduler"] = "bong_tangent"
    write(tmp_path, "a", graph, **RULES)
    card = card_in(tmp_path)
    with pytest.raises(InvalidRequest) as told:
        build(order_of(card), card, ObjectInfo.of(INFO), {})
    assert told.value.problems[0].field == f"{SAMPLER}.scheduler"


def test_a_workflow_that_saves_nothing_is_refused(tmp_path: Path) -> None:
    graph = {n: node for n, node in WORDS.items() if n != SAVER}
    write(tmp_path, "a", graph, **RULES)
    card = card_in(tmp_path)
    with pytest.raises(InvalidRequest) as told:
        build(order_of(card), card, ObjectInfo.of(INFO), {})
    assert "saves a video" in told.value.problems[0].allowed


def test_a_graph_that_changed_since_is_looked_at_anew(tmp_path: Path) -> None:
    write(tmp_path, "a", **RULES)
    card = card_in(tmp_path)
    graph = copy.deepcopy(WORDS)
    del graph[SAMPLER]["inputs"]["seed"]
    (tmp_path / "a.json").write_text(json.dumps(graph), encoding="utf-8")
    with pytest.raises(InvalidRequest) as told:
        build(order_of(card), card, ObjectInfo.of(INFO), {})
    assert told.value.problems[0].field == "inputs.seed"
    (tmp_path / "a.json").write_text("{", encoding="utf-8")
    with pytest.raises(InvalidRequest, match=r"a\.json"):
        build(order_of(card), card, ObjectInfo.of(INFO), {})


def test_a_seed_stays_within_what_the_node_takes(tmp_path: Path) -> None:
    write(tmp_path, "a", **RULES)
    card, data = card_in(tmp_path), definitions("new")
    data["KSampler"]["input"]["required"]["seed"][1]["max"] = 2**32 - 1
    graph = build(order_of(card, seed=2**40 + 3), card, ObjectInfo.of(data), {})
    assert graph[SAMPLER]["inputs"]["seed"] == 3
    assert validate(graph, data).error is None


def test_a_whole_number_is_sent_where_one_is_wanted(tmp_path: Path) -> None:
    graph = copy.deepcopy(WORDS)
    graph[SAVER] = {
        "class_type": "SaveWEBM",
        "inputs": {
            "images": [str(int(SAVER) - 2), 0],
            "filename_prefix": "x",
            "codec": "vp9",
            "fps": 16,
            "crf": 20,
        },
    }
    bound = BOUND | {"fps": f"{SAVER}.fps"}
    fps = {"minimum": 8, "maximum": 24, "default": 16}
    write(tmp_path, "a", graph, inputs=bound, fps=fps, **RULES)
    card, data = card_in(tmp_path), definitions("new")
    data["SaveWEBM"]["input"]["required"]["fps"][0] = "INT"
    filled = build(order_of(card, fps=23.976), card, ObjectInfo.of(data), {})
    assert filled[SAVER]["inputs"]["fps"] == 24


def test_output_and_memory_are_for_the_backend(tmp_path: Path) -> None:
    write(tmp_path, "a", output=int(SAVER), vram_gib=12, **RULES)
    card = card_in(tmp_path)
    assert card.remote is not None
    assert card.remote.settings["output"] == int(SAVER)
    assert card.remote.settings["vram_gib"] == 12


def test_a_workflow_of_paid_nodes_may_have_a_price(tmp_path: Path) -> None:
    price = {
        "rates": [{"amount": "0.1", "per": "clip"}],
        "source": "https://example.com",
        "date": "2026-11-01",
    }
    write(tmp_path, "a", price=price, **RULES)
    assert card_in(tmp_path).price != "free"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=10,
)


@given(
    graph=values, fields=st.dictionaries(st.sampled_from(["inputs", "sizes", "fps", "x"]), values)
)
@settings(max_examples=40, deadline=None)
def test_nothing_that_is_written_breaks_the_reader(
    tmp_path_factory: pytest.TempPathFactory, graph: Any, fields: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("w")
    write(folder, "a", graph if not isinstance(graph, str) else {"1": graph})
    file = folder / "a.yaml"
    file.write_text(json.dumps(fields), encoding="utf-8")
    assert len(cards(folder)) + len(problems(folder)) == 1
    nodes = {"1": {"class_type": "A", "inputs": graph}, "2": {"class_type": "B", "inputs": {}}}
    (folder / "a.json").write_text(json.dumps(nodes), encoding="utf-8")
    assert len(cards(folder)) + len(problems(folder)) == 1
