"""Runs are compared picture by picture, clip by clip, and a difference that may be chance is called so."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from models import compare
from models.compare import Split, changed, difference, read_run
from models.compare_page import write_page
from rov.errors import UserError


def results(gain: dict[str, float], frames: int = 4) -> dict[str, Any]:
    """A split whose pictures have an F1 of 0.5 and the gain of their clip."""
    pictures = [
        {
            "path": f"/pictures/{clip}_{i}.jpg",
            "set": "s",
            "scene": clip,
            "f1": 0.5 + more,
            "misses": i,
            "false_alarms": 1,
        }
        for clip, more in gain.items()
        for i in range(frames)
    ]
    rows = {f"s/{clip}": {"map50": 0.5 + more, "low": None} for clip, more in gain.items()}
    classes = {"fish": {"ap50": 0.4, "ap50_95": None, "labels": 9}}
    return {"val": {"metrics": {"map50": 0.4, "pictures": 12, "calibration_error": None}, "per_class": classes,
                    "per_scene": rows, "pictures": pictures}}  # fmt: skip


def run(folder: Path, gain: dict[str, float], recipe: str = "") -> Path:
    (folder / "worst").mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(results(gain)))
    (folder / "recipe.toml").write_text(recipe or "[optimisation]\nrate = 0.1\n")
    (folder / "log.jsonl").write_text('{"epoch": 1, "focal": 2.0}\n{"epoch": 2, "focal": 1.0, "map50": 0.3}\n')
    cv2.imwrite(str(folder / "worst/001_s_a.jpg"), np.zeros((9, 16, 3), np.uint8))
    return folder


def split(gain: dict[str, float], frames: int = 4) -> Split:
    import msgspec

    return msgspec.convert(results(gain, frames)["val"], Split)


NONE = dict.fromkeys("abcde", 0.0)


@pytest.mark.parametrize(
    ("gain", "verdict"),
    [
        (dict.fromkeys("abcde", 0.1), "better"),
        (dict.fromkeys("abcde", -0.1), "worse"),
        ({"a": 0.4, "b": -0.1, "c": -0.1, "d": -0.1, "e": 0.0}, "not decided"),
        ({"a": 0.1, "b": 0.1}, "no interval can be given"),
    ],
)
def test_one_lucky_clip_decides_nothing(gain: dict[str, float], verdict: str) -> None:
    found = difference(split(NONE), split(gain, 200))
    assert found.verdict == verdict and found.clips == len(gain)
    assert found.mean == pytest.approx(np.mean(list(gain.values()))), (
        "over the pictures of both: the first four of each"
    )
    assert found.pictures == 4 * len(gain)


def test_other_pictures_are_no_comparison() -> None:
    assert difference(split({"a": 0.0}), split({"z": 0.0})).pictures == 0


def test_the_page_and_the_tables_name_what_was_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = run(tmp_path / "a", NONE)
    b = run(tmp_path / "b", NONE | {"c": 0.3}, "[optimisation]\nrate = 0.2\n")
    compare.main([a, b], "val", 3, None)
    said = capsys.readouterr().out
    assert "optimisation.rate: 0.1 | 0.2" in said and "b against a: not decided" in said and "0.800 (+0.300)" in said
    page = (tmp_path / "compare.html").read_text()
    assert "c_0.jpg is not there any more" in page and page.count("data:image/jpeg") == 2 and "<svg" in page
    assert "F1 0.80, 0 missed, 1 false" in page
    runs = [read_run(a), read_run(b)]
    assert changed(runs) == {"optimisation.rate": ["0.1", "0.2"]}
    write_page([runs[0]], "val", 3, tmp_path / "one.html")


def test_a_run_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        read_run(tmp_path / "gone")
    folder = run(tmp_path / "a", NONE)
    with pytest.raises(UserError, match="measured nothing on test; there is val"):
        compare.main([folder], "test", 3, None)
    (folder / "results.json").write_text('{"val": {}}')
    with pytest.raises(UserError, match=r"results\.json: .*metrics"):
        read_run(folder)
    (folder / "results.json").unlink()
    with pytest.raises(UserError, match="is not finished"):
        read_run(folder)
