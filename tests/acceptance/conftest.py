from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from acceptance.command import PROMPT, QUICK, Made, User
from acceptance.stage import write_cards
from kinoloom.media.images import save_png
from training.spark.world import Scene, render

# Some test or other loads torch before Kinoloom could ask it, as it does, for threads that do not
# spin while they wait; beside another busy program that is a matter of minutes.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture
def user(tmp_path: Path) -> User:
    """Somebody who has just installed Kinoloom."""
    return User(tmp_path)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """One rendered clip that many tests look at; none may change it."""
    user = User(tmp_path_factory.mktemp("made"))
    ended = user.run("generate", PROMPT, *QUICK, "--seed", "7", "--json").succeeded()
    return Made(user, ended, Path(ended.events()[-1]["clip"]["path"]))


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder in which this process itself uses Kinoloom, so that the model is loaded once."""
    place = tmp_path_factory.mktemp("studio")
    before = Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        for name in [n for n in os.environ if n.startswith("KINOLOOM_")]:
            patch.delenv(name)
        patch.setenv("KINOLOOM_HOME", str(place / "home"))
        patch.setenv("KINOLOOM_OUTPUTS", str(place / "outputs"))
        patch.setenv("XDG_CONFIG_HOME", str(place / "config"))
        yield place
    assert Path.cwd() == before


@pytest.fixture(scope="session")
def film() -> np.ndarray:
    """17 frames of the world that spark knows, drawn: a blue ball moves to the right."""
    scene = Scene("blue", "ball", "large", "right", "grass", seed=4)
    return render(scene, 17)[0]


@pytest.fixture(scope="session")
def picture(studio: Path, film: np.ndarray) -> Path:
    """The film's first frame as a PNG."""
    path = studio / "first.png"
    save_png(path, film[0])
    return path


@pytest.fixture(scope="session")
def last_picture(studio: Path, film: np.ndarray) -> Path:
    """The film's last frame as a PNG."""
    path = studio / "last.png"
    save_png(path, film[-1])
    return path


@pytest.fixture(scope="session")
def psnr() -> Callable[[np.ndarray, np.ndarray], float]:
    """Peak signal-to-noise ratio in dB."""

    def measure(a: np.ndarray, b: np.ndarray) -> float:
        error = np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)
        return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))

    return measure


@pytest.fixture(scope="session")
def chaos_cards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny model's card for many quick clips. Not to be changed."""
    folder = tmp_path_factory.mktemp("chaos-cards")
    write_cards(folder)
    return folder
