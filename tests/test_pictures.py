"""Picture files from memory cards and phones, damaged JPEGs of a camera, and runs that show nothing."""

import os
import struct
import zlib
from pathlib import Path
from threading import Event
from typing import Any

import cv2
import numpy as np
import pytest

from rov.errors import UserError
from rov.media.check import ENOUGH, FROZEN_MIN, ContentCheck, WorthlessError
from rov.media.files import others_in, shown
from rov.media.headers import kind_of, size_of
from rov.media.jpeg import TRIES, JpegDecoder
from rov.media.pictures import decode_image, read_image
from rov.media.sources import CaptureSettings, images, parse_camera_source
from rov.media.stamps import JUMP_NS, Stamps
from rov.types import Image
from tests.films import grey, moving


def detailed(size: tuple[int, int] = (160, 120)) -> Image:
    noise = np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8)
    return np.asarray(cv2.resize(noise, size), np.uint8)


def encoded(suffix: str, image: Image | None = None, *options: int) -> bytes:
    return bytes(cv2.imencode(suffix, detailed() if image is None else image, list(options))[1].tobytes())


def with_exif(jpeg: bytes, orientation: int) -> bytes:
    tiff = b"II*\0\x08\0\0\0" + struct.pack("<HHHII", 1, 0x0112, 3, 1, orientation) + bytes(4)
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", 8 + len(tiff)) + b"Exif\0\0" + tiff + jpeg[2:]


def png_header(width: int, height: int) -> bytes:
    """The beginning of a PNG: it must be refused before its pixels are read."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


# ---- what can be read --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_by_exif(orientation: int) -> None:
    image = decode_image(with_exif(encoded(".jpg"), orientation), "x.jpg")
    assert image.shape == ((120, 160, 3) if orientation < 5 else (160, 120, 3))
    corner = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}
    y, x = corner[orientation]
    assert np.abs(image[y, x].astype(int) - decode_image(encoded(".jpg"), "x")[0, 0]).max() < 12


def test_every_depth_and_palette_becomes_eight_bits_of_three_channels() -> None:
    base = detailed()
    rgba = np.dstack([base, np.full(base.shape[:2], 128, np.uint8)])
    grey_one = np.asarray(cv2.cvtColor(base, cv2.COLOR_BGR2GRAY), np.uint8)
    for suffix, image, expected in (
        (".png", base.astype(np.uint16) * 257, base), (".tiff", base.astype(np.uint16) * 257, base),
        (".png", grey_one, np.dstack([grey_one] * 3)), (".png", rgba, base), (".bmp", base, base),
        (".tiff", base, base),
    ):  # fmt: skip
        read = decode_image(encoded(suffix, image), "x")
        assert read.dtype == np.uint8 and np.array_equal(read, expected), suffix
    pages = cv2.imencodemulti(".tiff", [base, grey(1), grey(2)])[1].tobytes()
    assert np.array_equal(decode_image(pages, "pages.tif"), base), "the first page"


def test_a_jpeg_without_its_last_two_bytes_is_whole(tmp_path: Path) -> None:
    jpeg = encoded(".jpg")
    assert np.array_equal(decode_image(jpeg[:-2], "x.jpg"), decode_image(jpeg, "x.jpg"))
    (tmp_path / "called.png").write_bytes(jpeg)
    assert read_image(tmp_path / "called.png").shape == (120, 160, 3)


def test_names_that_are_no_text_or_look_like_options(tmp_path: Path) -> None:
    for raw in (b"caf\xe9.jpg", b"-x.jpg", b"100%d.jpg", b"a:b.jpg"):
        path = tmp_path / os.fsdecode(raw)
        path.write_bytes(encoded(".jpg"))
        assert read_image(path).shape == (120, 160, 3)
    assert shown(tmp_path / os.fsdecode(b"caf\xe9.jpg")).endswith("caf\ufffd.jpg")


# ---- what cannot --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("progressive", [0, 1])
@pytest.mark.parametrize("harm", ["half", "third", "hole", "cut out"])
def test_a_damaged_jpeg_is_not_shown_with_a_grey_half(harm: str, progressive: int) -> None:
    jpeg = encoded(".jpg", detailed((320, 240)), cv2.IMWRITE_JPEG_PROGRESSIVE, progressive)
    at = len(jpeg) // 2
    broken = {"half": jpeg[:at], "third": jpeg[: len(jpeg) // 3], "hole": jpeg[:at] + bytes(500) + jpeg[at + 500 :],
              "cut out": jpeg[:at] + jpeg[at + 500 :]}[harm]  # fmt: skip
    with pytest.raises(UserError, match=r"^x\.jpg: cannot be read as an image: it is damaged"):
        decode_image(broken, "x.jpg")


def ftyp(brand: bytes) -> bytes:
    return struct.pack(">I", 24) + b"ftyp" + brand + b"\0\0\0\0mif1" + brand + bytes(2000)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [("sent_as.jpg", ftyp(b"heic"), "HEIC under the name of a .jpg"), ("IMG.heic", ftyp(b"heic"), "it is HEIC"),
     ("film.jpg", ftyp(b"isom"), "it is a film"), ("x.png", encoded(".png")[:300], "its PNG is damaged"),
     ("x.jpg", b"<html>404 not found</html>", "cannot be read as an image"), ("x.jpg", b"\xff\xd8\xff", "JPEG")],
)  # fmt: skip
def test_what_is_no_picture_is_one_sentence(name: str, data: bytes, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        decode_image(data, name)
    assert str(caught.value).startswith(f"{name}: ") and "\n" not in str(caught.value)


def sized(kind: str, width: int, height: int) -> bytes:
    """A header that names this size."""
    if kind == "PNG":
        return png_header(width, height)
    if kind == "GIF":
        return b"GIF89a" + struct.pack("<HH", width, height) + bytes(20)
    if kind == "TIFF":
        data = encoded(".tiff")
        for tag, old, new in ((256, 160, width), (257, 120, height)):
            data = data.replace(struct.pack("<HHIHH", tag, 3, 1, old, 0), struct.pack("<HHII", tag, 4, 1, new))
        return data
    head = bytearray(encoded({"JPEG": ".jpg", "BMP": ".bmp", "WebP": ".webp", "JP2": ".jp2"}[kind]))
    if kind == "JPEG":
        at = head.index(b"\xff\xc0") + 5
        head[at : at + 4] = struct.pack(">HH", height, width)
    elif kind == "BMP":
        head[18:26] = struct.pack("<ii", width, -height)
    elif kind == "WebP":
        head[12:30] = b"VP8X" + struct.pack("<I", 10) + bytes(4) + (width - 1).to_bytes(3, "little") + (
            height - 1).to_bytes(3, "little")  # fmt: skip
    else:
        at = head.index(b"ihdr") + 4
        head[at : at + 8] = struct.pack(">II", height, width)
    return bytes(head)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "WebP", "TIFF", "JP2"])
def test_a_huge_picture_is_refused_before_it_is_decoded(kind: str) -> None:
    data = sized(kind, 16000, 15000)
    assert kind_of(data) == kind and size_of(data, kind) == (16000, 15000)
    with pytest.raises(UserError, match=r"too large: 16000×15000 are 240 megapixels, 64 are the most"):
        decode_image(data, "x")


def test_sizes_in_real_headers() -> None:
    for suffix, kind in ((".png", "PNG"), (".jpg", "JPEG"), (".bmp", "BMP"), (".tiff", "TIFF"), (".webp", "WebP")):
        data = encoded(suffix)
        assert kind_of(data) == kind and size_of(data, kind) == (160, 120)
        assert size_of(data[:20], kind) in ((0, 0), (160, 120)), "cut off within its header"


def test_what_was_not_looked_at_is_counted(tmp_path: Path) -> None:
    for name in ("a.HEIC", "b.heic", "c.dng", "ok.jpg", "noise", "sub/d.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert others_in(tmp_path).endswith(
        "5 files of other kinds were not looked at: .HEIC 2, .dng 1, without a suffix 1, .mp4 1"
    )
    assert others_in(tmp_path / "sub").endswith("1 file of another kind was not looked at: .mp4 1")
    (tmp_path / "sub" / "d.mp4").unlink()
    assert others_in(tmp_path / "sub") == ""


# ---- a camera's JPEGs -------------------------------------------------------------------------------------------


def test_damaged_jpegs_of_a_camera_are_nothing() -> None:
    decoder, shapes = JpegDecoder(), []
    for k in range(30):
        jpeg = encoded(".jpg", moving(k, (160, 120)))
        image = decoder.decode(jpeg[: len(jpeg) // 2] if k % 3 == 2 else jpeg)
        shapes.append(None if image is None else image.shape)
        assert image is None or np.abs(image.astype(int) - moving(k, (160, 120))).mean() < 5
    assert shapes == [(120, 160, 3), (120, 160, 3), None] * 10
    assert decoder.decode(b"") is None and decoder.decode(b"no picture") is None


def test_a_camera_that_builds_all_its_jpegs_oddly_is_taken_as_it_is() -> None:
    decoder, jpeg = JpegDecoder(), encoded(".jpg")
    seen = [decoder.decode(jpeg[: len(jpeg) - 300]) is not None for _ in range(TRIES + 3)]
    assert seen == [False] * TRIES + [True] * 3


class MjpgDevice:
    """Stands in for OpenCV's V4L2 reader of a USB camera with a bad cable: every third picture is cut in half."""

    def __init__(self, raw: bool):
        self.raw, self.k, self.rgb = raw, -1, True

    def isOpened(self) -> bool:
        return True

    def get(self, prop: int) -> float:
        return float(cv2.VideoWriter.fourcc(*"MJPG")) if prop == cv2.CAP_PROP_FOURCC else 0.0

    def set(self, prop: int, value: float) -> bool:
        if prop == cv2.CAP_PROP_CONVERT_RGB and self.raw:
            self.rgb = bool(value)
        return self.raw or prop != cv2.CAP_PROP_CONVERT_RGB

    def read(self) -> tuple[bool, Any]:
        self.k += 1
        if self.k == 12:
            return False, None
        image = moving(self.k, (160, 120))
        if self.rgb:
            return True, image
        jpeg = encoded(".jpg", image)
        return True, np.frombuffer(jpeg[: len(jpeg) // 2] if self.k % 3 == 2 else jpeg + bytes(99), np.uint8)[None]

    def release(self) -> None: ...


@pytest.mark.parametrize("raw", [True, False])
def test_a_device_that_gives_jpegs_is_asked_for_them_as_they_are(monkeypatch: pytest.MonkeyPatch, raw: bool) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: MjpgDevice(raw))
    said: list[str] = []
    pictures = list(images(parse_camera_source("0"), CaptureSettings(width=160, height=120), Event(), said.append))
    assert [image is None for image in pictures] == [raw and k % 3 == 2 for k in range(12)]
    assert all(image is None or np.abs(image.astype(int) - moving(k, (160, 120))).mean() < 5
               for k, image in enumerate(pictures))  # fmt: skip
    assert said == []


# ---- a run that saw nothing ----------------------------------------------------------------------------------------


def checked(images: list[Image], promised: int) -> str:
    check = ContentCheck()
    for image in images:
        check.add(image)
    return check.fault(promised)


def test_when_a_run_is_no_success() -> None:
    assert checked([], ENOUGH) == f"only 0 of the {ENOUGH} pictures can be read"
    assert checked([moving(k) for k in range(4)], ENOUGH) == f"only 4 of the {ENOUGH} pictures can be read"
    assert checked([moving(k) for k in range(5)], ENOUGH) == "" == checked([moving(1)], ENOUGH - 1)
    assert checked([grey(3)] * ENOUGH, 0) == f"all {ENOUGH} pictures are black"
    assert checked([grey(3)] * (ENOUGH - 1), 0) == "" == checked([grey(4)] * ENOUGH, 0)
    assert "the same" in checked([grey(90)] * FROZEN_MIN, 0) and checked([grey(90)] * (FROZEN_MIN - 1), 0) == ""
    spot = grey(90)
    spot[7, 11, 2] += 1
    assert checked([grey(90)] * FROZEN_MIN + [spot], 0) == ""
    assert checked([grey(90)] * FROZEN_MIN + [grey(90, (32, 32))], 0) == ""
    with pytest.raises(WorthlessError, match="^f: all 10"):
        check = ContentCheck()
        for _ in range(10):
            check.add(grey(0))
        check.finish("f", 10)


# ---- times --------------------------------------------------------------------------------------------------------

S = 1_000_000_000


def steady(stamps: list[int | None]) -> tuple[list[int], list[str]]:
    made = Stamps(S // 10)
    return [t for t, _ in made.steady((stamp, None) for stamp in stamps)], made.notes


def test_times_that_make_sense_are_kept() -> None:
    stamps: list[int | None] = [0, S // 10, S // 3, 5 * S, 5 * S + 1, 12 * S]
    assert steady(stamps) == (stamps, [])
    slow: list[int | None] = [k * 30 * S for k in range(5)]
    assert steady(slow)[0] == slow, "a picture every 30 s"


def test_times_that_stand_still_or_are_missing_advance_at_the_films_rate() -> None:
    assert steady([None] * 4)[0] == [0, S // 10, 2 * S // 10, 3 * S // 10]
    assert steady([0, 0, 0])[0] == [0, S // 10, 2 * S // 10]
    assert steady([0, S, S // 2, 2 * S])[0] == [0, S, S + S // 10, 2 * S]
    assert steady([0, 2**62, 2 * S // 10])[0] == [0, S // 10, 2 * S // 10]


def test_a_clock_that_falls_back_goes_on_and_says_so() -> None:
    times, notes = steady([100 * S, 101 * S, 0, S, 2 * S])
    assert times == [100 * S, 101 * S, 102 * S, 103 * S, 104 * S]
    assert notes == ["the video's clock jumps -102 s at 102.0 s"]


def test_many_jumps_are_said_shortly() -> None:
    stamps: list[int | None] = []
    for k in range(10):
        stamps += [2 * k * JUMP_NS + each * S // 10 for each in range(5)]
    times, notes = steady(stamps)
    assert times == stamps and len(notes) == 4 and notes[3] == "it jumps 6 more times"
