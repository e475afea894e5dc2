"""What Foxglove draws and plots: boxes on pictures, the lens, and JSON schemas in the subset it parses."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from foxglove_schemas_protobuf.CameraCalibration_pb2 import CameraCalibration
from foxglove_schemas_protobuf.ImageAnnotations_pb2 import ImageAnnotations
from foxglove_schemas_protobuf.PointsAnnotation_pb2 import PointsAnnotation
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from rov.messages import Tracks
from rov.optics.lens import Calibration

SEEN, HIDDEN = (0.2, 1.0, 0.4, 1.0), (1.0, 0.7, 0.1, 0.6)
"""Colours (r, g, b, a) of a track that was detected in this frame, and of one that is only predicted."""


def drawing(tracks: Tracks) -> ImageAnnotations:
    """A box and a line of text per track."""
    result = ImageAnnotations()
    for track in tracks.items:
        x1, y1, x2, y2 = track.box
        red, green, blue, alpha = HIDDEN if track.hidden_s > 0 else SEEN
        box = result.points.add(type=PointsAnnotation.LINE_LOOP, thickness=2)
        for x, y in ((x1, y1), (x2, y1), (x2, y2), (x1, y2)):
            box.points.add(x=x, y=y)
        text = result.texts.add(text=f"{track.label} {track.track_id} {track.score:.2f}", font_size=14)
        text.position.x, text.position.y = x1, y1
        for part, colour in ((box, box.outline_color), (text, text.text_color)):
            colour.r, colour.g, colour.b, colour.a = red, green, blue, alpha
            part.timestamp.FromNanoseconds(tracks.frame_t)  # Foxglove matches a picture by its capture time
    return result


def camera_info(t: int, frame: str, lens: Calibration) -> CameraCalibration:
    """A calibration as ROS and Foxglove define it; the rectified picture keeps the original camera matrix."""
    c = lens.matrix
    result = CameraCalibration(
        frame_id=frame, width=lens.width, height=lens.height, distortion_model=lens.model, D=lens.distortion,
        K=c.ravel(), R=np.eye(3).ravel(), P=np.column_stack([c, np.zeros(3)]).ravel(),
    )  # fmt: skip
    result.timestamp.FromNanoseconds(t)
    return result


def descriptors(file: FileDescriptor) -> bytes:
    """A protobuf file and its imports, imports first, as a serialised FileDescriptorSet."""
    found: dict[str, FileDescriptor] = {}

    def visit(each: FileDescriptor) -> None:
        for needed in each.dependencies:
            visit(needed)
        found[each.name] = each

    visit(file)
    result = FileDescriptorSet()
    for each in found.values():
        each.CopyToProto(result.file.add())
    return bytes(result.SerializeToString(deterministic=True))


def json_schema(kind: Any) -> dict[str, Any]:
    """A self-contained schema of one object, for a message type or a union of them."""
    schema = msgspec.json.schema(kind)
    return plain(schema, schema.pop("$defs", {}))


def plain(schema: dict[str, Any], named: dict[str, Any]) -> dict[str, Any]:
    """Reduce a schema to what Foxglove's parser accepts: one type per field. References are resolved, enums get a
    type, tuples become arrays (ours hold one type each), and null is left out (such fields may still be null)."""
    if "$ref" in schema:
        return plain(named[schema["$ref"].rpartition("/")[2]], named)
    if "anyOf" in schema:
        options = [plain(each, named) for each in schema["anyOf"] if each != {"type": "null"}]
        return options[0] if len(options) == 1 else merged(options)
    result = dict(schema)
    if "prefixItems" in result:
        result["items"] = result.pop("prefixItems")[0]
    if "enum" in result:
        result["type"] = "string"
    if "items" in result:
        result["items"] = plain(result["items"], named)
    if "properties" in result:
        result["properties"] = {name: plain(each, named) for name, each in result["properties"].items()}
    return result


def merged(options: list[dict[str, Any]]) -> dict[str, Any]:
    """One object with the fields of all options; required are the fields that all of them require."""
    fields: dict[str, Any] = {}
    for option in options:
        for name, field in option["properties"].items():
            known = fields.setdefault(name, dict(field))
            known.update({"enum": sorted({*known["enum"], *field["enum"]})} if "enum" in field else {})
    required = sorted(set.intersection(*(set(option["required"]) for option in options)))
    return {"type": "object", "properties": fields, "required": required}
