"""`rov detect`: objects in images, folders and videos, as COCO."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2

from rov.errors import UserError
from rov.messages import Detection, Track, Tracks
from rov.offline.pipeline import ahead
from rov.vision.footage import IMAGES, VIDEOS, Image, Video, images_in, read_image
from rov.vision.overlay import draw

if TYPE_CHECKING:
    from rov.vision.detector import Detector  # torch takes seconds: paths that cannot be read are told before


class Still(NamedTuple):
    """A picture and the name it has in the answer: a file's path, or `video.mp4#12` for a frame."""

    name: str
    image: Image


class Stills:
    """Pictures from a mix of images, folders and videos. `skipped` says what could not be read, and why."""

    def __init__(self, paths: list[Path]):
        """Raises UserError at once for a path that is not there or of no known kind."""
        self.paths: list[Path] = []
        self.skipped: list[str] = []
        self.total = 0
        """Pictures to come, as far as the files say."""
        for path in paths:
            if path.is_dir():
                inside = images_in(path)
                if not inside:
                    raise UserError(f"{path}: holds no images ({' '.join(sorted(IMAGES))})")
                self.paths += inside
                self.total += len(inside)
            elif not path.exists():
                raise UserError(f"{path}: no such file")
            elif path.suffix.lower() in VIDEOS:
                self.paths.append(path)
                self.total += Video(path).declared
            else:
                self.paths.append(path)
                self.total += 1
        self.one = len(self.paths) == 1

    def __iter__(self) -> Iterator[Still]:
        for path in self.paths:
            try:
                if path.suffix.lower() in VIDEOS:
                    yield from self._frames(path)
                else:
                    yield Still(str(path), read_image(path))
            except UserError as error:
                if self.one:
                    raise
                self.skipped.append(str(error))

    def _frames(self, path: Path) -> Iterator[Still]:
        video, read = Video(path), 0
        for shot in video.shots():
            read += 1
            yield Still(f"{path}#{shot.frame_id}", shot.image)
        if read < video.declared:
            self.skipped.append(
                f"{path}: {video.declared - read} of the {video.declared} frames it promises are missing"
            )


def detect_all(
    stills: Stills, detector: Detector, score_min: float, preview: Path | None, progress: Callable[[], None]
) -> dict[str, Any]:
    """COCO: images, categories, annotations with bbox [x, y, w, h] in pixels of the original image, and score."""
    answer: dict[str, Any] = {
        "info": {"description": f"rov detect, weights {detector.card.weights_sha256[:12]}"},
        "images": [],
        "categories": [{"id": i, "name": name} for i, name in enumerate(detector.card.classes, 1)],
        "annotations": [],
    }
    ids = {name: i for i, name in enumerate(detector.card.classes, 1)}
    if preview:
        preview.mkdir(parents=True, exist_ok=True)
    for group in ahead(_grouped(stills, detector.batch), 2):
        for still, found in zip(group, detector.detect([each.image for each in group], score_min), strict=True):
            number = len(answer["images"]) + 1
            height, width = still.image.shape[:2]
            answer["images"].append({"id": number, "file_name": still.name, "width": width, "height": height})
            for each in found:
                x1, y1, x2, y2 = (round(v, 2) for v in each.box)
                w, h = round(x2 - x1, 2), round(y2 - y1, 2)
                answer["annotations"].append(
                    {"id": len(answer["annotations"]) + 1, "image_id": number, "category_id": ids[each.label],
                     "bbox": [x1, y1, w, h], "area": round(w * h, 2), "iscrowd": 0, "score": round(each.score, 4)}
                )  # fmt: skip
            if preview:
                cv2.imwrite(str(preview / f"{number:06d}.jpg"), drawn(still.image, found))
            progress()
    answer["skipped"] = stills.skipped
    return answer


def drawn(image: Image, found: tuple[Detection, ...]) -> Image:
    """The picture with its objects."""
    height, width = image.shape[:2]
    items = tuple(Track(0, each.label, each.score, each.box) for each in found)
    return draw(image, Tracks(t=0, frame_id=0, frame_t=0, width=width, height=height, items=items))


def _grouped(stills: Stills, size: int) -> Iterator[list[Still]]:
    group: list[Still] = []
    for still in stills:
        group.append(still)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
