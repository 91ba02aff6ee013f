"""Does every prompt of the world become exactly its meanings?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from training.spark import tokenizer as words
from training.spark.world import WORLD, Scene

TOKENIZER = words.build()
UNSAID = {"medium", "static"}  # the rule, for which the world has no word


def meanings(prompt: str) -> list[str]:
    """The tokens of a prompt without the end mark."""
    tokens = TOKENIZER.convert_ids_to_tokens(TOKENIZER(prompt).input_ids)
    assert tokens[-1] == "</s>"
    return list(tokens[:-1])


def test_five_hundred_scenes_keep_their_meaning() -> None:
    rng = np.random.default_rng(5)
    for _ in range(500):
        scene = Scene.draw(rng)
        prompt = scene.prompt(rng)
        said = {scene.size, scene.colour, scene.shape, scene.motion, scene.background, scene.camera}
        assert sorted(meanings(prompt)) == sorted(said - UNSAID), prompt


@pytest.mark.parametrize("group", list(WORLD))
def test_every_phrase_of_the_world_is_one_meaning(group: str) -> None:
    for name, entry in WORLD[group].items():
        for phrase in filter(None, entry["say"]):
            assert meanings(phrase) == [name], phrase


@pytest.mark.parametrize("camera", words.CAMERAS)
@pytest.mark.parametrize("motion", ["left", "right", "up", "down", "growing", "shrinking"])
def test_a_camera_is_never_a_motion(camera: str, motion: str) -> None:
    for clause in WORLD["cameras"][camera]["say"]:
        assert not {"left", "right", "up", "down"} & set(meanings(clause)), clause
        phrase = WORLD["motions"][motion]["say"][0]
        assert meanings(f"a red ball {phrase}, {clause}") == ["red", "ball", motion, camera]
        assert meanings(f"{clause}, a red ball {phrase}") == [camera, "red", "ball", motion]


def test_strange_words_are_unknown_and_do_no_harm() -> None:
    assert meanings("dragon") == ["<unk>"]
    assert meanings("a red ball rolling right past a zeppelin") == ["red", "ball", "right", "<unk>",
                                                                   "<unk>"]  # fmt: skip


def test_case_marks_and_width_do_not_matter() -> None:
    plain = meanings("a red ball rolling to the right on green grass")
    assert plain == ["red", "ball", "right", "grass"]
    assert meanings("  A RED Ball -- rolling to the RIGHT, on Green Grass!! ") == plain
    assert (
        meanings("ｒｅｄ ball rolling to the right on green grass") == plain
    )  # full-width letters


def test_nothing_said_is_only_the_end() -> None:
    assert meanings("") == []
    assert meanings("a the of ... 123") == []


def test_ids_fit_into_the_text_encoder() -> None:
    assert len(TOKENIZER) <= words.VOCABULARY_SIZE
    assert (TOKENIZER.pad_token_id, TOKENIZER.eos_token_id, TOKENIZER.unk_token_id) == (0, 1, 2)


def test_a_long_prompt_is_cut_and_a_short_one_padded() -> None:
    for prompt in ("red ball " * 100, "red"):
        ids = TOKENIZER(
            prompt, padding="max_length", truncation=True, max_length=words.MAX_LENGTH
        ).input_ids
        assert len(ids) == words.MAX_LENGTH


def test_saved_and_loaded_it_gives_the_same_ids(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    loaded = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    rng = np.random.default_rng(6)
    prompts = [Scene.draw(rng).prompt(rng) for _ in range(50)] + ["", "A Dragon, pan left"]
    assert loaded(prompts).input_ids == TOKENIZER(prompts).input_ids
    assert loaded.pad_token_id == 0
