"""The detector: runs the network on batches of pictures and returns objects. Live, a batch is one picture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file

from rov.concurrency import cores
from rov.concurrency import cpu_has_bfloat16 as cpu_has_bfloat16
from rov.media.pictures import read_image
from rov.messages import Detection
from rov.resources import find_resource
from rov.types import Image
from rov.vision.model_card import InputSpec as InputSpec
from rov.vision.model_card import ModelCard as ModelCard
from rov.vision.model_card import ModelError as ModelError
from rov.vision.model_card import load_card as load_card
from rov.vision.model_card import sha256 as sha256
from rov.vision.model_card import unreadable
from rov.vision.network import DetectorNet, decode, fuse

WEIGHTS = "models/detector.safetensors"


class Batch(NamedTuple):
    """Letterboxed pictures (B, S, S, 3), and for each that is not padding its scale and original (height, width)."""

    pictures: Image
    scales: tuple[float, ...]
    shapes: tuple[tuple[int, int], ...]


class Detector:
    """Finds objects in pictures of any size: `Detector().detect(["reef.jpg"])`. Results do not depend on which pictures
    share a batch."""

    def __init__(
        self,
        weights: str | os.PathLike[str] | None = None,
        device: str = "auto",
        precision: str = "auto",
        batch: int = 1,
    ):
        """Load weights (None: those that come with rov) and their card. `device`: auto, cpu or cuda. `precision`: auto,
        float32, bfloat16 or float16. `batch`: pictures per run of the network. Raises ModelError with what to do."""
        weights = find_resource(WEIGHTS) if weights is None else Path(weights)
        self.card = load_card(weights)
        self.device = torch.device(_device(device))
        self.dtype = _precision(precision, self.device)
        self.batch = batch
        self.bad = 0
        """Number of pictures for which the network's output was not finite."""
        self.full = 0
        """Number of pictures whose list of objects was full at the score asked for: there may have been more."""
        shape = self.card.network
        net = DetectorNet(len(self.card.classes), shape.widths, shape.pyramid)
        try:
            net.load_state_dict(load_file(weights))
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise unreadable(weights, error) from None
        except RuntimeError as error:
            raise ModelError(f"{weights}: does not fit this network: {str(error).splitlines()[-1].strip()}") from None
        self.net = fuse(net.eval()).to(self.device, self.dtype)
        self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs
        self.slopes: NDArray[np.float64] = np.array(self.card.slopes()).T
        """(2, classes) slope and offset from the logit of a raw score to that of the reported one."""
        size = self.card.input.size
        self.pinned = torch.zeros(batch, size, size, 3, dtype=torch.uint8, pin_memory=True) if self._cuda else None
        """One reused staging buffer: pinning memory for each batch costs more than the copy."""

    @property
    def _cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def workers(self) -> int:
        """Best number of batches in flight when there are many. On a CPU one per core, each with its own thread, which
        beats sharing one batch among the cores; on a GPU one."""
        return 1 if self._cuda else max(1, cores() // torch.get_num_threads())

    def detect(
        self, images: Sequence[Image | str | os.PathLike[str]], score_min: float = 0.5
    ) -> list[tuple[Detection, ...]]:
        """Objects of each picture, best first, boxes in its own pixels. A picture is an array (H, W, 3) BGR, or the
        path of a picture file. Any number of pictures. Raises UserError for a file that is no picture."""
        found: list[tuple[Detection, ...]] = []
        for start in range(0, len(images), self.batch):
            batch = self.prepare([_pixels(each) for each in images[start : start + self.batch]])
            found += self.objects(batch, self.infer(batch.pictures), [score_min] * len(batch.scales))
        return found

    def prepare(self, images: Sequence[Image]) -> Batch:
        """Letterbox up to `batch` pictures. Uses only constants of the detector, so another thread may call it."""
        size = self.card.input.size
        pictures = np.zeros((self.batch, size, size, 3), np.uint8)  # a short batch keeps the static shape
        scales = tuple(letterbox(image, pictures[i]) for i, image in enumerate(images))
        return Batch(pictures, scales, tuple((image.shape[0], image.shape[1]) for image in images))

    @torch.inference_mode()
    def infer(self, pictures: Image) -> NDArray[np.float32]:
        """The network alone: (B, S, S, 3) -> (B, K, 6) score, class, x1 y1 x2 y2 in input pixels, best first."""
        source = torch.from_numpy(pictures)
        if self.pinned is not None:
            source = self.pinned.copy_(source)
        x = source.to(self.device, non_blocking=True).permute(0, 3, 1, 2)  # (B, 3, S, S), channels last in memory
        x = (x * (1 / self.card.input.std)).sub_(self.card.input.mean / self.card.input.std).to(self.dtype)
        heat, distances = self.net(x)
        scores, kinds, boxes = decode(heat, distances, self.card.network.top)
        packed = torch.cat((scores[..., None], kinds[..., None].float(), boxes), dim=-1)
        return np.asarray(packed.cpu().numpy(), np.float32)  # one sync per batch

    def objects(
        self, batch: Batch, answer: NDArray[np.float32], score_min: Sequence[float]
    ) -> list[tuple[Detection, ...]]:
        """The network's output as objects in the pictures' own pixels; `score_min` has one value per picture."""
        found: list[tuple[Detection, ...]] = []
        for row, scale, (height, width), least in zip(answer, batch.scales, batch.shapes, score_min, strict=False):
            if not np.isfinite(row).all():
                self.bad += 1
                found.append(())
                continue
            kinds = row[:, 1].astype(int)
            slope, offset = self.slopes[:, kinds]
            raw = np.clip(row[:, 0].astype(float), 1e-6, 1 - 1e-6)
            scores = 1 / (1 + np.exp(-slope * np.log(raw / (1 - raw)) - offset))
            limits = np.array([width, height, width, height], np.float32)
            boxes = np.minimum(np.maximum(row[:, 2:] / scale, 0.0), limits)
            keep = (scores >= least) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
            self.full += bool((scores >= least).all())
            order = np.argsort(-scores[keep], kind="stable")
            found.append(
                tuple(
                    Detection(self.card.classes[kind], score, (box[0], box[1], box[2], box[3]))
                    for kind, score, box in zip(
                        kinds[keep][order].tolist(),
                        scores[keep][order].tolist(),
                        boxes[keep][order].tolist(),
                        strict=True,
                    )
                )
            )
        return found


def _pixels(picture: Image | str | os.PathLike[str]) -> Image:
    return read_image(Path(picture)) if isinstance(picture, str | os.PathLike) else picture


def letterbox(image: Image, out: Image) -> float:
    """Scale a picture into the top left of `out` (S, S, 3), grey below or beside it; returns the scale used."""
    size, (height, width) = out.shape[0], image.shape[:2]
    scale = float(size / max(height, width))
    w, h = max(1, round(width * scale)), max(1, round(height * scale))
    # INTER_AREA averages over the covered pixels, so that a small buoy in a large picture does not alias away.
    interpolation = cv2.INTER_AREA if scale < 0.5 else cv2.INTER_LINEAR
    cv2.resize(image, (w, h), dst=out[:h, :w], interpolation=interpolation)
    out[h:], out[:h, w:] = 127, 127
    return scale


def _device(wanted: str) -> str:
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ModelError("perception.device is cuda, but torch finds no CUDA device; `rov doctor` says more")
    return wanted


def _precision(wanted: str, device: torch.device) -> torch.dtype:
    if wanted != "auto":
        dtype: Any = getattr(torch, wanted)
        assert isinstance(dtype, torch.dtype)
        return dtype
    if device.type == "cuda":
        return torch.float16
    # Without CPU instructions for it, bfloat16 is emulated and slower than float32.
    return torch.bfloat16 if cpu_has_bfloat16() else torch.float32
