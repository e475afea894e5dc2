"""`rov detect`: objects in images, folders and videos, as COCO."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rov.concurrency import prefetch
from rov.dives.playback import DivePictures
from rov.errors import UserError
from rov.media.check import ContentCheck, WorthlessError
from rov.media.files import IMAGES, VIDEOS, images_in, others_in, shown
from rov.media.films import Video
from rov.media.overlay import draw
from rov.media.pictures import read_image, write_image
from rov.messages import Detection, Track, Tracks
from rov.types import Image

if TYPE_CHECKING:
    from rov.vision.detector import Detector  # importing torch takes seconds: bad paths are reported first


DIVE = ".mcap"
FILMS = VIDEOS | {DIVE}
"""Files that hold more than one picture."""


class NamedPicture(NamedTuple):
    """A picture and its name in the result: a file's path, or `video.mp4#12` for a frame."""

    name: str
    image: Image


class PictureSource:
    """Pictures from a mix of images, folders, videos and dives. `skipped` has a sentence for what could not be read.
    Raises WorthlessError after the last picture when they show nothing (see ContentCheck)."""

    def __init__(self, paths: list[Path], camera: str | None = None):
        """`camera` is a topic, for dives. Raises UserError for a missing path or a folder without images."""
        self.camera = camera
        self.paths: list[Path] = []
        self.skipped: list[str] = []
        self.total = 0
        """Expected pictures, by what the files declare."""
        for path in paths:
            if path.is_dir():
                inside = images_in(path)
                if not inside:
                    raise UserError(f"{path}: holds no images ({' '.join(sorted(IMAGES))}){_but(others_in(path))}")
                if others := others_in(path):
                    self.skipped.append(others)
                self.paths += inside
                self.total += len(inside)
            elif not path.exists():
                raise UserError(f"{path}: no such file")
            elif path.suffix.lower() in FILMS:
                self.paths.append(path)
                self.total += self._film(path).expected
            else:
                self.paths.append(path)
                self.total += 1
        self.one = len(self.paths) == 1
        self.promised = 0
        """Pictures declared by the files read so far."""

    def __iter__(self) -> Iterator[NamedPicture]:
        check, self.promised = ContentCheck(), 0
        for path in self.paths:
            try:
                for still in self._frames(path) if path.suffix.lower() in FILMS else self._picture(path):
                    check.add(still.image)
                    yield still
            except UserError as error:
                if self.one:
                    raise
                self.skipped.append(str(error))
        check.finish("all in all", self.promised)

    def _picture(self, path: Path) -> Iterator[NamedPicture]:
        self.promised += 1
        yield NamedPicture(shown(path), read_image(path))

    def _film(self, path: Path) -> Video | DivePictures:
        return DivePictures(path, self.camera) if path.suffix.lower() == DIVE else Video(path)

    def _frames(self, path: Path) -> Iterator[NamedPicture]:
        video = self._film(path)
        try:
            for shot in video.shots():
                yield NamedPicture(f"{shown(path)}#{shot.frame_id}", shot.image)
        finally:
            self.promised += video.promised
            self.skipped += [f"{path}: {note}" for note in video.notes]


def detect_all(
    stills: PictureSource,
    detector: Detector,
    score_min: float,
    preview: Path | None,
    progress: Callable[[], None],
    top: int | None = None,
) -> dict[str, Any]:
    """Detect in all pictures and return COCO: images, categories, annotations with score and bbox [x, y, w, h] in
    pixels of the original image. `top`: at most so many objects of each picture, the best. `skipped` lists what could
    not be read; `fault`, if present, why the run failed."""
    answer: dict[str, Any] = {
        "info": {"description": f"rov detect, weights {detector.card.weights_sha256[:12]}"},
        "images": [],
        "categories": [{"id": i, "name": name} for i, name in enumerate(detector.card.classes, 1)],
        "annotations": [],
    }
    ids = {name: i for i, name in enumerate(detector.card.classes, 1)}
    if preview:
        preview.mkdir(parents=True, exist_ok=True)
    try:
        for group in prefetch(_grouped(stills, detector.batch), 2):
            found = detector.detect([each.image for each in group], score_min)
            for still, objects in zip(group, (each[:top] for each in found), strict=True):
                _add(answer, still, objects, ids)
                if preview:
                    write_image(preview / f"{len(answer['images']):06d}.jpg", drawn(still.image, objects))
                progress()
    except WorthlessError as error:
        answer["fault"] = shown(str(error))
    answer["skipped"] = [shown(each) for each in stills.skipped]
    return answer


def _add(answer: dict[str, Any], still: NamedPicture, found: tuple[Detection, ...], ids: dict[str, int]) -> None:
    number = len(answer["images"]) + 1
    height, width = still.image.shape[:2]
    answer["images"].append({"id": number, "file_name": still.name, "width": width, "height": height})
    for each in found:
        x1, y1, x2, y2 = (round(v, 2) for v in each.box)
        w, h = round(x2 - x1, 2), round(y2 - y1, 2)
        answer["annotations"].append(
            {"id": len(answer["annotations"]) + 1, "image_id": number, "category_id": ids[each.label],
             "bbox": [x1, y1, w, h], "segmentation": [], "area": round(w * h, 2), "iscrowd": 0,
             "score": round(each.score, 4)}
        )  # fmt: skip


def drawn(image: Image, found: tuple[Detection, ...]) -> Image:
    """The picture with its detections drawn on it."""
    height, width = image.shape[:2]
    items = tuple(Track(0, each.label, each.score, each.box) for each in found)
    return draw(image, Tracks(t=0, frame_id=0, frame_t=0, width=width, height=height, items=items))


def _grouped(stills: PictureSource, size: int) -> Iterator[list[NamedPicture]]:
    """Groups of `size` pictures. Those read before an error are yielded before it is raised."""
    group: list[NamedPicture] = []
    try:
        for still in stills:
            group.append(still)
            if len(group) == size:
                yield group
                group = []
    except UserError:
        if group:
            yield group
        raise
    if group:
        yield group


def _but(sentence: str) -> str:
    """The end of an error message: what else a folder holds."""
    return f"; {sentence.partition(': ')[2]}" if sentence else ""
