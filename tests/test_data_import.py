"""Labels of others become a set: odd files are put right and told of, wrong ones are named by file, line and key."""

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from models import data
from models.data import tables
from models.data.__main__ import app
from models.data.card import Card, read_card
from models.data.errors import DataError, Findings
from models.data.film import Choice, import_film
from models.data.importing import import_set
from models.data.placing import turn
from models.data.scenes import finder
from models.data.sets import PictureSet
from models.data.sources import Source, identify
from rov.errors import UserError
from rov.media.pictures import read_image
from tests.conftest import make_clip

SIZE = (160, 120)


def picture(path: Path, seed: int = 0, orientation: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rough = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    encoded = cv2.imencode(path.suffix, cv2.resize(rough, SIZE))[1].tobytes()
    if orientation > 1:  # an APP1 segment with one EXIF entry, after the start marker
        exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01" + bytes([0, orientation, 0, 0]) + bytes(4)
        encoded = encoded[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + encoded[2:]
    path.write_bytes(encoded)
    return path


def run(source: Path, out: Path, images: Path | None = None, **more: Any) -> tuple[PictureSet, list[str]]:
    form, labels = identify(source)
    given = Source(
        labels, form, images or (source if source.is_dir() else None), more.pop("names", ()), more.pop("scenes", "")
    )
    found, findings = import_set(given, out, Card(name=out.name), "the command", rename=more.pop("rename", {}), **more)
    return found, findings.sentences()


def objects(found: PictureSet) -> dict[str, list[tuple[Any, str]]]:
    return {each.picture.file_name: each.objects for each in found.pictures()}


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    root = tmp_path / "yolo"
    for folder in ("a", "b"):
        for i in range(2):
            picture(root / "images" / folder / f"{i}.jpg", i)
        (root / "labels" / folder).mkdir(parents=True)
    (root / "labels/a/0.txt").write_bytes(b"\xef\xbb\xbf0 0.5 0.5 0.25 0.5\r\n2 0.9 0.5 0.4 0.2\r\n\r\n")
    (root / "labels/a/1.txt").write_text("")
    (root / "labels/b/0.txt").write_text("0 0.1 0.1 0.3 0.1 0.3 0.4\n0 0.5 0.5 0 0\n")
    (root / "labels/b/orphan.txt").write_text("0 0.5 0.5 0.2 0.2")
    (root / "data.yaml").write_bytes("train: ../train/images\nnames:\n  0: fish\n  2: étoile\n".encode("cp1252"))
    return root


def test_yolo_as_people_write_it(yolo: Path, tmp_path: Path) -> None:
    found, notes = run(yolo, tmp_path / "out", rename={"étoile": "starfish"})
    got = objects(found)
    assert list(got) == ["images/a/0.jpg", "images/a/1.jpg", "images/b/0.jpg", "images/b/1.jpg"], (
        "same names are kept apart"
    )
    assert got["images/a/0.jpg"] == [((60, 30, 100, 90), "fish"), ((112, 48, 160, 72), "starfish")], "cut at the edge"
    assert got["images/b/0.jpg"] == [((16, 12, 48, 48), "fish")], "an outline has a box"
    assert got["images/a/1.jpg"] == got["images/b/1.jpg"] == []
    said = " ".join(notes)
    assert all(each in said for each in ("Windows-1252", "without area", "cut", "label file without a picture"))
    assert [each.picture.scene for each in found.pictures()] == ["a", "a", "b", "b"]
    (step,) = found.card.transformations or []
    assert step.command == "the command" and str(tmp_path) not in step.what and found.card.hashes.pictures


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("7 .5 .5 .2 .2", r"0\.txt, line 2: class 7 has no name; there are 0 fish"),
        ("1 .5 .5 .2 .2", "class 1 has no name"),
        ("0 .5 .5 .2", "has 4 numbers"),
        ("0 100 50 20 20", "no pixels"),
        ("fish .5 .5 .2 .2", "must be numbers"),
        ("0 nan .5 .2 .2", "must be shares"),
        ("0.5 .5 .5 .2 .2", "is no class number"),
        ("1e999 .5 .5 .2 .2", "is no class number"),
    ],
)
def test_a_wrong_line_is_named_or_left_out_and_then_nothing_is_known(
    line: str, said: str, yolo: Path, tmp_path: Path
) -> None:
    (yolo / "labels/a/0.txt").write_text(f"0 .5 .5 .5 .5\n{line}\n")
    with pytest.raises(DataError, match=said):
        run(yolo, tmp_path / "out")
    assert not list(tmp_path.glob("out*")), "nothing half is left"
    found, notes = run(yolo, tmp_path / "out", skip_bad=True)
    first = found.pictures()[0]
    assert first.unknown == {"fish", "étoile"} and "left out" in notes[-1] + notes[0]


def test_broken_pictures_and_missing_names_are_named(yolo: Path, tmp_path: Path) -> None:
    whole = (yolo / "images/a/0.jpg").read_bytes()
    (yolo / "images/a/0.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"a/0\.jpg: .*damaged"):
        run(yolo, tmp_path / "out")
    found, _ = run(yolo, tmp_path / "out", skip_bad=True)
    assert len(found.pictures()) == 3
    (yolo / "data.yaml").unlink()
    with pytest.raises(DataError, match="--names fish,rock"):
        run(yolo, tmp_path / "more")
    (yolo / "data.yaml").write_text("names:\n - a\n b: [")
    with pytest.raises(DataError, match=r"data\.yaml, line 3: no YAML"):
        run(yolo, tmp_path / "more")


def test_voc_without_sizes_with_same_names_and_old_encodings(tmp_path: Path) -> None:
    root = tmp_path / "voc"
    corners = "<xmin>-5</xmin><ymin>10</ymin><xmax>{}.5</xmax><ymax>60</ymax>"
    box = f"<object><name>fish</name><bndbox>{corners}</bndbox></object>"
    for folder, x in (("x", 50), ("y", 90)):
        picture(root / "JPEGImages" / folder / "same.jpg", x)
        (root / "Annotations" / folder).mkdir(parents=True)
        (root / "Annotations" / folder / "same.xml").write_text(f"<annotation>{box.format(x)}</annotation>")
    picture(root / "JPEGImages/other.png")
    text = (
        f"<annotation><filename>C:\\data\\other.png</filename>{box.format(70).replace('fish', 'étoile')}</annotation>"
    )
    (root / "Annotations/z.xml").write_bytes(b'<?xml version="1.0" encoding="ISO-8859-1"?>' + text.encode("latin-1"))
    found, notes = run(root, tmp_path / "out")
    got = objects(found)
    assert got["images/x/same.jpg"] == [((0, 10, 50.5, 60), "fish")] and got["images/y/same.jpg"][0][0][2] == 90.5
    assert got["images/other.png"] == [((0, 10, 70.5, 60), "étoile")] and "3 ×" in notes[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "<a><object><name>f</name><bndbox><xmin>w</xmin></bndbox></object></a>",
            r"0\.xml, object 1 \(f\): .*<xmin> is 'w'",
        ),
        ("<a><object><name>f</name><bndbox/></object></a>", r"has no <xmin>"),
        ("<a><object><bndbox/></object></a>", "object 1: has no <name>"),
        ("<a>\n<object>\n", r"0\.xml, line 3: no XML"),
        ('<?xml version="1.0" encoding="klingon"?><a/>', "no XML"),
        ("<a><size><width>300</width><height>100</height></size></a>", r"0\.xml, size: width and height are 300×100"),
    ],
)
def test_a_wrong_xml_is_named(text: str, said: str, tmp_path: Path) -> None:
    picture(tmp_path / "voc/0.jpg")
    (tmp_path / "voc/0.xml").write_text(text)
    with pytest.raises(DataError, match=said):
        run(tmp_path / "voc", tmp_path / "out")


def test_voc_of_a_turned_picture_without_an_encoding_under_an_odd_name(tmp_path: Path) -> None:
    root = tmp_path / "voc"
    path = picture(root / "a:b?.jpg", orientation=6)
    size = "<size><width>160</width><height>120</height></size>"
    box = "<xmin>100</xmin><ymin>10</ymin><xmax>140</xmax><ymax>30</ymax>"
    text = f"<annotation>{size}<object><name>Äsche</name><bndbox>{box}</bndbox></object></annotation>"
    path.with_suffix(".xml").write_bytes(text.encode("latin-1"))
    found, notes = run(root, tmp_path / "out")
    assert objects(found) == {"images/a_b_.jpg": [((90, 100, 110, 140), "Äsche")]} and "Windows-1252" in " ".join(notes)


def coco(path: Path, images: list[dict[str, Any]], annotations: list[dict[str, Any]], **more: Any) -> Path:
    categories = [{"id": 90, "name": "fish"}, {"id": 3, "name": "rock"}]
    path.write_text(json.dumps({"images": images, "categories": categories, "annotations": annotations} | more))
    return path


def test_coco_from_other_machines_and_web_tools(tmp_path: Path) -> None:
    images = tmp_path / "img"
    for i, name in enumerate(("sub1/a.jpg", "sub2/a.jpg", "big.jpg")):
        picture(images / name, i)
    picture(images / "turned.jpg", 5, orientation=6)
    listed = [
        {"id": 10, "file_name": "/home/x/sub1/a.jpg"},
        {"id": "s7", "file_name": "C:\\pics\\sub2\\a.jpg", "width": 160, "height": 120},
        {"id": 3, "file_name": "http://host/data/upload/1/0a1b2c3d-turned.jpg", "width": 160, "height": 120},
        {"id": 4, "file_name": "big", "width": 80, "height": 60},
    ]
    boxes = [
        (10, 90, [150, 100, 40, 40]),
        ("s7", 3, [10, 10, 0, 5]),
        (3, 90, [100, 10, 40, 20]),
        (4, 90, [5, 5, 20, 10]),
    ]
    drawn = [
        {"id": i, "image_id": image, "category_id": kind, "bbox": box} for i, (image, kind, box) in enumerate(boxes)
    ]
    more = {"info": {"contributor": "divers", "year": 2026}, "licenses": [{"id": 1, "name": "CC-BY-4.0"}]}
    found, notes = run(coco(tmp_path / "labels.json", listed, drawn, **more), tmp_path / "out", images)
    got = objects(found)
    assert got["images/sub1/a.jpg"] == [((150, 100, 160, 120), "fish")] and got["images/sub2/a.jpg"] == []
    assert got["images/turned.jpg"] == [((90, 100, 110, 140), "fish")], "labelled as stored, kept upright"
    assert read_image(tmp_path / "out/images/turned.jpg", stored=True).shape[:2] == (160, 120)
    assert got["images/big.jpg"] == [((10, 10, 50, 30), "fish")], "labelled in a copy of half the size"
    assert len(notes) == 5 and found.card.classes == {"fish": "fish", "rock": "rock"}
    assert found.card.creator == "divers" and found.card.licence == "CC-BY-4.0"


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ({"file_name": "gone.jpg"}, r"labels\.json, image 1: gone\.jpg: no such picture"),
        ({"file_name": "a.jpg"}, "several pictures have this name: x/a.jpg, y/a.jpg"),
        (
            {"file_name": "x/a.jpg", "width": 100, "height": 120},
            "image 1: x/a.jpg: width and height are 100×120, and the picture has 160×120",
        ),
        ({"file_name": ""}, "no name of a picture"),
    ],
)
def test_a_wrong_image_is_named(image: dict[str, Any], said: str, tmp_path: Path) -> None:
    picture(tmp_path / "img/x/a.jpg")
    picture(tmp_path / "img/y/a.jpg", 1)
    labels = coco(tmp_path / "labels.json", [{"id": 1} | image], [])
    with pytest.raises(DataError, match=said):
        run(labels, tmp_path / "out", tmp_path / "img")


@pytest.mark.parametrize("turned", range(1, 9))
def test_a_box_turns_with_its_picture(turned: int, tmp_path: Path) -> None:
    image = np.zeros((120, 160, 3), np.uint8)
    image[16:48, 24:104] = 255
    path = picture(tmp_path / "a.jpg", orientation=turned)
    head = path.read_bytes().split(b"\xff\xdb", 1)[0]
    path.write_bytes(head + b"\xff\xdb" + cv2.imencode(".jpg", image)[1].tobytes().split(b"\xff\xdb", 1)[1])
    x1, y1, x2, y2 = turn((24, 16, 104, 48), turned, 160, 120)
    ys, xs = np.nonzero(read_image(path)[..., 0] > 128)
    assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) == pytest.approx((x1, y1, x2, y2), abs=1)


@pytest.mark.parametrize(
    "text",
    [
        "filename;width;height;class;xmin;ymin;xmax;ymax\r\na.jpg;160;120;fish;10;10,5;50;60\r\nb.jpg;160;120;;;;;\r\n",
        "a.jpg,10,10.5,50,60,fish\nb.jpg,,,,,\n",
        "Image_ID\tLabel\tx\ty\tw\th\na\tfish\t10\t10.5\t40\t49.5\nb\t\t\t\t\t\n",
    ],
)
def test_tables_of_boxes(text: str, tmp_path: Path) -> None:
    picture(tmp_path / "t/a.jpg")
    picture(tmp_path / "t/b.jpg", 1)
    (tmp_path / "t/boxes.csv").write_bytes(text.encode("utf-16"))
    found, _ = run(tmp_path / "t/boxes.csv", tmp_path / "out")
    assert objects(found) == {"images/a.jpg": [((10, 10.5, 50, 60), "fish")], "images/b.jpg": []}


def test_a_wrong_cell_is_named(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    (tmp_path / "b.csv").write_text(
        "image,class,x1,y1,x2,y2\na.jpg,fish,1,2,x,4\nno.jpg,fish,1,2,3,4\na.jpg,,1,2,30,40\n"
    )
    with pytest.raises(DataError) as caught:
        run(tmp_path / "b.csv", tmp_path / "out")
    said = str(caught.value)
    assert "b.csv, line 2: column x2: 'x' is no number" in said and "line 4: has a box, and no class" in said
    assert "line 3: no.jpg: no such picture" in said


def test_a_film_gives_chosen_frames_and_their_labels_know_the_dive(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.avi", frames=20)
    frames, _ = import_film(
        clip, tmp_path / "frames", Card(name="frames"), "", Choice(every=0.5), None, lambda total: None
    )
    pictures = frames.pictures()
    assert [each.picture.t for each in pictures] == pytest.approx([0, 0.5, 1.0, 1.5], abs=0.11)
    assert {each.picture.scene for each in pictures} == {"clip"} and frames.card.source == "clip.avi"
    named = [{"id": i, "file_name": Path(each.picture.file_name).name} for i, each in enumerate(pictures)]
    labels = coco(tmp_path / "instances.json", named, [{"image_id": 0, "category_id": 90, "bbox": [10, 10, 20, 20]}])
    found, _ = run(labels, tmp_path / "out", tmp_path / "frames")
    assert found.card.source == "clip.avi" and len(found.card.transformations or []) == 2
    got = [(each.picture.scene, each.picture.t) for each in found.pictures()]
    assert got == [("clip", each.picture.t) for each in pictures], "where the labels were drawn, nobody knew of dives"
    found, _ = run(labels, tmp_path / "inside", tmp_path / "frames/images")
    assert {each.picture.scene for each in found.pictures()} == {"clip"} and found.card.source == "clip.avi"
    at, _ = import_film(clip, tmp_path / "at", Card(name="at"), "", Choice((0.3, 1.7)), None, lambda total: None)
    assert [each.picture.t for each in at.pictures()] == pytest.approx([0.3, 1.7], abs=0.11)
    with pytest.raises(DataError, match="no frame was chosen"):
        import_film(clip, tmp_path / "none", Card(name="none"), "", Choice((99.0,)), None, lambda total: None)


def test_a_still_camera_gives_one_frame(tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "still.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, SIZE)
    image = read_image(picture(tmp_path / "a.png"))
    for _ in range(10):
        writer.write(image)
    writer.release()
    found, notes = import_film(
        tmp_path / "still.avi", tmp_path / "out", Card(name="o"), "", Choice(number=5), None, lambda total: None
    )
    assert len(found.pictures()) == 1 and notes[0].startswith("4 frames that look like the one before")


def test_a_table_becomes_a_set_with_a_card(tmp_path: Path) -> None:
    (tmp_path / "wiki.csv").write_bytes("Date;Open;Close\r\n2024-01-01;1.5;2\r\n2024-01-02;2;\r\n".encode("utf-8-sig"))
    form, path = identify(tmp_path / "wiki.csv")
    assert form == "table"
    found, _ = tables.import_table(path, tmp_path / "out", Card(name="out", licence="CC0"), "", False)
    assert (found.root / "table.csv").read_text() == "Date,Open,Close\n2024-01-01,1.5,2\n2024-01-02,2,\n"
    with pytest.raises(DataError, match="creator is missing"):
        tables.load_table(found.root)
    content = tables.read_table(found.root / "table.csv", Findings())
    assert content.numbers("Open") == [1.5, 2.0] and np.isnan(content.numbers("Close")[1])
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n3\n")
    with pytest.raises(DataError, match=r"bad\.csv, line 3: has 1 cells, and there are 2 columns"):
        tables.import_table(tmp_path / "bad.csv", tmp_path / "bad", Card(name="bad"), "", False)
    with pytest.raises(DataError, match="is a table without pictures"):
        found.pictures()


@pytest.mark.parametrize(
    ("how", "name", "scene"),
    [
        ("one", "a/b.jpg", ""), ("folder", "train/images/b.jpg", "train"), ("folder", "images/x/y/b.jpg", "x/y"),
        ("prefix", "images/A1_0007.jpg", "A1"), (r"re:(dive\d+)", "x/dive7-b.jpg", "dive7"),
        (r"re:(dive\d+)", "x/b.jpg", ""), ("s.csv", "images/b.jpg", "reef"), ("s.csv", "c.jpg", ""),
    ],
)  # fmt: skip
def test_the_scene_of_a_picture(how: str, name: str, scene: str, tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("image,scene\nb.jpg,reef\n")
    assert finder(how, tmp_path)(name) == scene


@pytest.mark.parametrize(
    ("how", "said"), [("frames", "must be one"), ("re:(", "no regular"), ("re:a", "needs a group")]
)
def test_a_way_to_no_scene(how: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        finder(how, tmp_path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gone", "no such file"),
        ("a.zip", "unpack it"),
        ("a.txt", "neither"),
        ("empty", "no pictures"),
        ("two", "name the one"),
    ],
)
def test_what_is_no_source(name: str, said: str, tmp_path: Path) -> None:
    for each in ("a.zip", "a.txt"):
        (tmp_path / each).write_text("x")
    (tmp_path / "empty").mkdir()
    picture(tmp_path / "two/a.jpg")
    for each in ("1.json", "2.json"):
        (tmp_path / "two" / each).write_text("{}")
    with pytest.raises(UserError, match=said):
        identify(tmp_path / name)


def test_the_command_line_from_yolo_to_a_set_that_trains(
    yolo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def call(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["models.data", *words])
        app(list(words), standalone_mode=False)
        caught = capsys.readouterr()
        return caught.out + caught.err

    out = str(tmp_path / "mine")
    said = call("import", str(yolo), "--out", out, "--set", "licence=MIT")
    assert "4 pictures, 3 boxes" in said and "the card lacks about, creator, source" in said
    with pytest.raises(DataError, match="creator is missing: who took the pictures"):
        data.load(out, "train")
    assert "train: 2 pictures" in call("split", out, "--val", "0.5")
    told = [
        f"--set={key}=told"
        for key in read_card(Path(out) / "dataset.toml").missing()
        if key not in ("classes", "split")
    ]
    call("card", out, *told, "--set", "absent.classes=diver", "--set", "unknown.a=étoile")
    train, val = data.load(out, "train", ("fish", "diver", "étoile")), data.load(out, "val")
    assert len(train) == len(val) == 2 and {each.group for each in train} != {each.group for each in val}
    by_group = {each.group: each for each in [*train, *data.load(out, "val", ("fish", "diver", "étoile"))]}
    assert by_group["a"].known.tolist() == [True, True, False] and by_group["b"].known.all()
    with pytest.raises(DataError, match="is there already"):
        call("import", str(yolo), "--out", out)
    with pytest.raises(DataError, match="is no entry of a card"):
        call("card", out, "--set", "owner=me")
