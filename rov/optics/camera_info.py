"""Reads camera calibration files: ROS `camera_info` (as YAML file or printed message), OpenCV's FileStorage, and
Kalibr's camchain.

Anything doubtful is refused, naming what was found: a lens that is read wrongly steers wrongly.
"""

from __future__ import annotations

import math
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import yaml

from rov import toml
from rov.errors import UserError

BYTES_MAX = 300_000
"""Largest file. It is generous because OpenCV's own tool also writes all the corners it saw."""
PIXELS_MAX = 64_000_000
"""Largest picture: the rectification maps take 6 bytes a pixel."""
ASPECT_MAX = 1000
"""Focal lengths and centres beyond this many picture sizes are refused."""
PINHOLE = {"plumb_bob", "radtan", "radial-tangential", "rational_polynomial", "none"}
"""Names of the polynomial model; the rational one is the same where its further coefficients are 0."""
FISHEYE = {"equidistant", "fisheye", "equi", "kannala_brandt", "kannala_brandt4"}
NAMES: dict[str, tuple[str, ...]] = {
    "width": ("image_width", "width"),
    "height": ("image_height", "height"),
    "size": ("resolution", "image_size"),
    "matrix": ("camera_matrix", "k", "intrinsics"),
    "distortion": ("distortion_coefficients", "d", "distortion_coeffs", "dist_coeffs"),
    "model": ("distortion_model",),
    "kind": ("camera_model",),
    "name": ("camera_name",),
}
"""The keys of each value: ROS's file and message, OpenCV's, Kalibr's. Case does not matter."""

NODES_MAX = 1000
"""Most YAML nodes in a matrix or in the coefficients."""

Tree: TypeAlias = Any
"""A parsed YAML tree: mappings, lists, and scalars as text."""


class CalibrationError(UserError):
    """A calibration cannot be used."""


class CameraInfo(NamedTuple):
    """A camera file's content: size in pixels, the 9 numbers of the matrix row by row, the distortion model
    (`plumb_bob` or `equidistant`) and its coefficients."""

    name: str
    width: int
    height: int
    matrix: list[float]
    model: str
    distortion: list[float]


def read(path: Path) -> CameraInfo:
    """Read a camera file. Raises CalibrationError with file, line or key, and what was found."""
    camera = _camera(parsed(path), path)
    width, height = _size(camera, path)
    matrix = _matrix(camera, path)
    if (
        not all(map(math.isfinite, matrix))
        or matrix[6:] != [0, 0, 1]
        or matrix[3] != 0
        or min(matrix[0], matrix[4]) <= 0
    ):
        raise CalibrationError(f"{path}: the matrix is not a camera's: {_short(matrix)}")
    if max(map(abs, matrix)) > ASPECT_MAX * max(width, height):
        raise CalibrationError(f"{path}: the matrix does not fit pictures of {width}×{height}: {_short(matrix)}")
    model, distortion = _distortion(camera, path)
    name = camera.get("name")
    return CameraInfo(name if isinstance(name, str) and name else path.stem, width, height, matrix, model, distortion)


def parsed(path: Path) -> Tree:
    """The YAML in a file. Raises CalibrationError."""
    try:
        text = toml.read_text(path, BYTES_MAX)
    except OSError as error:
        raise CalibrationError(f"{path}: cannot be read: {error.strerror}") from None
    except toml.TomlError as error:
        raise CalibrationError(str(error)) from None
    first, _, rest = text.partition("\n")
    if first.startswith("%YAML:"):  # OpenCV's own spelling of the version; the empty line keeps line numbers right
        text = "\n" + rest
    try:
        return yaml.load(text, yaml.BaseLoader)  # knows text, lists and mappings, and builds nothing else
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise CalibrationError(f"{path}{line}: not YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise CalibrationError(f"{path}: not YAML: {str(error).splitlines()[0]}") from None
    except (RecursionError, ValueError, TypeError):  # too deep; a list or mapping as a key
        raise CalibrationError(f"{path}: not YAML of a camera: nested too deeply, or a list as a key") from None


def _camera(tree: Tree, path: Path, depth: int = 4) -> dict[str, Tree]:
    """The values of the one camera in a file, by the keys of NAMES. ROS parameters and Kalibr nest them below other
    keys."""
    if isinstance(tree, dict):
        lower = {str(key).lower(): value for key, value in tree.items()}
        found = {value: lower[name] for value, names in NAMES.items() for name in reversed(names) if name in lower}
        if "matrix" in found:
            return found
        below = [(key, each) for key, each in islice(tree.items(), 20) if isinstance(each, dict)] if depth else []
        cameras = [key for key, each in below if _holds_camera(each, depth - 1)]
        if len(cameras) > 1:
            raise CalibrationError(f"{path}: holds {len(cameras)} cameras ({', '.join(cameras[:4])}): leave one in it")
        if cameras:
            return _camera(tree[cameras[0]], path, depth - 1)
    holds = f"has {', '.join(map(str, list(tree)[:6]))}" if isinstance(tree, dict) else "has no keys"
    raise CalibrationError(
        f"{path}: not a ROS camera_info file: it needs image_width, image_height, camera_matrix, distortion_model and"
        f" distortion_coefficients, and {holds}"
    )


def _holds_camera(tree: Tree, depth: int) -> bool:
    if not isinstance(tree, dict):
        return False
    named = any(str(key).lower() in NAMES["matrix"] for key in tree)
    return named or (depth > 0 and any(_holds_camera(each, depth - 1) for each in islice(tree.values(), 20)))


def _size(camera: dict[str, Tree], path: Path) -> tuple[int, int]:
    """Width and height in px."""
    both = _numbers(camera.get("size"))
    sides = _numbers([camera.get("width", []), camera.get("height", [])]) or both
    if sides is None or len(sides) != 2:
        raise CalibrationError(f"{path}: needs image_width and image_height, both in pixels")
    if not all(side > 0 and math.isfinite(side) and side == round(side) for side in sides):
        raise CalibrationError(f"{path}: is of pictures of {sides[0]:g}×{sides[1]:g}, which is not a picture size")
    if sides[0] * sides[1] > PIXELS_MAX:
        raise CalibrationError(
            f"{path}: is of pictures of {sides[0]:g}×{sides[1]:g}; {PIXELS_MAX // 10**6} million pixels are the most"
        )
    return int(sides[0]), int(sides[1])


def _matrix(camera: dict[str, Tree], path: Path) -> list[float]:
    """Nine numbers; Kalibr's four are fx, fy, cx, cy."""
    found = _numbers(camera["matrix"])
    if found is not None and len(found) == 4:
        fx, fy, cx, cy = found
        return [fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0]
    if found is None or len(found) != 9:
        has = "something else" if found is None else f"{len(found)}"
        raise CalibrationError(f"{path}: camera_matrix needs 9 numbers, and has {has}")
    return found


def _distortion(camera: dict[str, Tree], path: Path) -> tuple[str, list[float]]:
    """The model by its ROS name, and its coefficients: 5 for plumb_bob, 4 for equidistant."""
    found = _numbers(camera.get("distortion"))
    if found is None or not all(map(math.isfinite, found)):
        raise CalibrationError(f"{path}: distortion_coefficients needs numbers, all of them finite")
    kind = camera.get("kind", "pinhole")
    if kind != "pinhole":
        raise CalibrationError(f"{path}: camera_model {_short(kind)}: only a pinhole with a distortion_model is known")
    model = camera.get("model")
    name = model.strip().lower().replace(" ", "_") if isinstance(model, str) else ""
    if not name and len(found) == 4:
        raise CalibrationError(
            f"{path}: has 4 distortion coefficients and no distortion_model: add plumb_bob, or equidistant (fisheye)"
        )
    if name in FISHEYE:
        if len(found) != 4:
            raise CalibrationError(f"{path}: distortion_model {name} needs 4 coefficients, the file has {len(found)}")
        return "equidistant", found
    if name and name not in PINHOLE:
        raise CalibrationError(
            f"{path}: distortion_model {_short(name)} is not known; plumb_bob and equidistant (fisheye) are"
        )
    more = found[5:]
    if len(found) < 4 and any(found):
        raise CalibrationError(
            f"{path}: distortion_model {name or 'plumb_bob'} needs 5 coefficients, the file has {len(found)}"
        )
    if any(more):
        raise CalibrationError(
            f"{path}: distortion_model {name or 'of'} with {len(found)} coefficients, and those after k3 are not 0:"
            " only plumb_bob (5) and equidistant (4) are known; calibrate without the rational model"
        )
    return "plumb_bob", (found + [0.0] * 5)[:5]


def _numbers(tree: Tree) -> list[float] | None:
    """All numbers in a list, in nested lists, or in `data` of a mapping; commas may be missing. None when there is
    anything but numbers, or too many."""
    found: list[float] = []
    left, visited = [tree], 0
    while left:
        each = left.pop()
        if isinstance(each, dict):
            each = next((value for key, value in each.items() if str(key).lower() == "data"), None)
        if isinstance(each, list):
            left += reversed(each)
        elif isinstance(each, str):
            try:
                found += [float(word.replace(".nan", "nan").replace(".inf", "inf")) for word in each.split()]
            except ValueError:
                return None
        else:
            return None
        visited += 1
        if visited > NODES_MAX or len(found) > NODES_MAX:  # YAML aliases can make a small file expand without end
            return None
    return found


def _short(value: Any) -> str:
    text = ", ".join(f"{each:g}" for each in value) if isinstance(value, list) else str(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
