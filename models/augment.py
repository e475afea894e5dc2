"""Augmentation of training pictures: other position, other size, other water. On uint8 BGR pictures with boxes."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from rov.types import Image


def place(
    image: Image, boxes: NDArray[np.float32], size: int, rng: np.random.Generator
) -> tuple[Image, NDArray[np.float32], NDArray[np.bool_]]:
    """Random scale, position, tilt and mirror into (size, size, 3). Also returns the new boxes, and which of them still
    count as labels: at least 40 % of the box and 3 pixels each way are inside."""
    height, width = image.shape[:2]
    scale = size / max(height, width) * np.exp(rng.uniform(np.log(0.6), np.log(1.7)))  # =U in log scale
    tilt = rng.normal(0.0, 4.0)  # degrees; +N
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    matrix = np.asarray(cv2.getRotationMatrix2D((0.0, 0.0), tilt, float(scale)), np.float64)
    matrix[:, 0] *= mirror
    centre = matrix[:, :2] @ np.array([width / 2, height / 2])
    free = max(0.0, abs(size - scale * max(height, width))) / 2 + 0.1 * size
    matrix[:, 2] = size / 2 - centre + rng.uniform(-free, free, 2)
    border = tuple(int(c) for c in rng.integers(60, 180, 3)) if rng.random() < 0.5 else (127, 127, 127)
    out = cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderValue=border)
    x1, y1, x2, y2 = boxes.T
    corners = np.stack([np.stack([x1, y1], 1), np.stack([x2, y1], 1), np.stack([x1, y2], 1), np.stack([x2, y2], 1)], 1)
    moved = corners @ matrix[:, :2].T + matrix[:, 2]  # (N, 4, 2)
    # The corners of a tilted box overstate the object; the ellipse inside it does not.
    half = np.stack([x2 - x1, y2 - y1], 1) / 2  # (N, 2)
    reach = np.sqrt((half[:, None] ** 2 * matrix[:, :2] ** 2).sum(-1))  # (N, 2) half width and height of that ellipse
    middle = moved.mean(1)
    full = np.concatenate([middle - reach, middle + reach], 1)
    inside = full.clip(0, size)
    sides = inside[:, 2:] - inside[:, :2]
    whole = np.maximum(full[:, 2:] - full[:, :2], 1e-6).prod(1)
    kept = (sides.prod(1) > 0.4 * whole) & (sides.min(1, initial=size) >= 3)
    return np.asarray(out, np.uint8), inside.astype(np.float32), kept


def water(image: Image, rng: np.random.Generator) -> Image:
    """Other water, light and lens: attenuation and backscatter per channel, exposure, contrast, blur, noise.

    Colours change by one 3×3 matrix and one table per channel, which is fast: this runs for every picture of an epoch.
    """
    keep = rng.uniform(0.5, 1.7)  # saturation; *U
    mix = np.full((3, 3), (1 - keep) / 3) + np.eye(3) * keep
    image = np.asarray(cv2.transform(image, mix), np.uint8)
    x = np.linspace(0.0, 1.0, 256)[:, None] ** np.exp(rng.normal(0.0, 0.25))  # exposure curve; *exp N
    x = x * np.exp(rng.normal(0.0, 0.22, 3))  # colour cast, each channel; *exp N
    mean = np.array(cv2.mean(image)[:3]) / 255.0
    x = (x - mean) * rng.uniform(0.6, 1.5) + mean + rng.normal(0.0, 0.05)  # contrast; *U, brightness; +N
    if rng.random() < 0.4:
        veil = rng.uniform(0.0, 0.45)  # backscatter: all colours move towards that of the water
        x = x * (1 - veil) + veil * rng.uniform((0.3, 0.2, 0.0), (0.9, 0.8, 0.5))
    table = (x * 255.0).clip(0, 255).astype(np.uint8)[:, None]  # (256, 1, 3)
    image = np.asarray(cv2.LUT(image, table), np.uint8)
    if rng.random() < 0.25:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.6)), np.uint8)
    if rng.random() < 0.4:
        noise = np.empty(image.shape, np.int16)
        cv2.setRNGSeed(int(rng.integers(1 << 31)))
        cv2.randn(noise, np.zeros(1), np.array([rng.uniform(1.0, 8.0)]))
        image = np.asarray(cv2.add(image, noise, dtype=cv2.CV_8U), np.uint8)
    return image


def paste(
    image: Image,
    boxes: NDArray[np.float32],
    kinds: NDArray[np.int64],
    cutouts: list[tuple[Image, int]],
    rng: np.random.Generator,
) -> tuple[Image, NDArray[np.float32], NDArray[np.int64]]:
    """Paste one to three round cutouts from other pictures, beside the objects that are labelled here."""
    image, height, width = image.copy(), image.shape[0], image.shape[1]
    for _ in range(int(rng.integers(1, 4))):
        cutout, kind = cutouts[int(rng.integers(len(cutouts)))]
        tall = float(np.exp(rng.uniform(np.log(0.03), np.log(0.35)))) * height  # =U in log scale
        h, w = max(6, round(tall)), max(6, round(tall * cutout.shape[1] / cutout.shape[0]))
        if h >= height or w >= width:
            continue
        x, y = int(rng.integers(0, width - w)), int(rng.integers(0, height - h))
        box = np.array([[x, y, x + w, y + h]], np.float32)
        if len(boxes) and iou(box, boxes).max() > 0.02:
            continue
        patch = cv2.resize(cutout, (w, h), interpolation=cv2.INTER_AREA if h < cutout.shape[0] else cv2.INTER_LINEAR)
        patch = np.clip(patch.astype(np.float32) * np.exp(rng.normal(0.0, 0.15, 3)), 0, 255)
        yy, xx = np.mgrid[0:h, 0:w]
        radius = np.hypot((xx - (w - 1) / 2) / (w / 2), (yy - (h - 1) / 2) / (h / 2))[..., None]
        alpha = np.clip((1.0 - radius) * 6.0 + 0.3, 0.0, 1.0) * rng.uniform(
            0.75, 1.0
        )  # a soft edge, seen through water
        under = image[y : y + h, x : x + w]
        under[:] = (patch * alpha + under * (1 - alpha)).astype(np.uint8)
        boxes, kinds = np.concatenate([boxes, box]), np.append(kinds, kind)
    return image, boxes, kinds


def iou(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Intersection over union of every pair: (N, 4), (M, 4) -> (N, M)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.maximum(high - low, 0).prod(-1)
    size_a, size_b = (a[:, 2:] - a[:, :2]).prod(-1), (b[:, 2:] - b[:, :2]).prod(-1)
    return np.asarray(shared / np.maximum(size_a[:, None] + size_b[None] - shared, 1e-9), np.float32)
