"""The detector network: a small convolutional backbone, a feature pyramid to stride 8, and one head of class heat maps
and box distances. A peak of a heat map is an object: no anchors, no non-maximum suppression, static shapes.

Heat maps after Zhou et al. 2019, "Objects as Points" (arXiv:1904.07850); box distances predicted at the peak as in
Liu et al. 2020, "Training-Time-Friendly Network for Real-Time Object Detection" (arXiv:1909.00700).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STRIDE = 8
"""Input pixels per heat-map cell."""
WIDTHS = (32, 64, 128, 192)
"""Channels at strides 4, 8, 16 and 32."""
PYRAMID = 48
"""Channels of the feature pyramid and the head."""
TOP = 256
"""Length of the list of objects of one picture; a school of fish has 60, and its weak peaks fill 128."""


class ConvNormRelu(nn.Sequential):
    """3×3 convolution, batch norm, ReLU; `stride` 2 halves the picture."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
        )


class Residual(nn.Module):
    """Two 3×3 convolutions with a residual connection. (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = ConvNormRelu(channels, channels)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)), inplace=True)


class DetectorNet(nn.Module):
    """(B, 3, S, S) normalised BGR pictures -> heat-map logits (B, classes, S/8, S/8) and distances (B, 4, S/8, S/8)
    from each cell centre to the left, top, right and bottom of its box, in input pixels. S is a multiple of 32."""

    def __init__(self, classes: int, widths: tuple[int, int, int, int] = WIDTHS, pyramid: int = PYRAMID):
        super().__init__()
        a, b, c, d = widths
        self.stem = nn.Sequential(ConvNormRelu(3, 16, 2), ConvNormRelu(16, a, 2), Residual(a))  # stride 4
        self.stride8 = nn.Sequential(ConvNormRelu(a, b, 2), Residual(b))
        self.stride16 = nn.Sequential(ConvNormRelu(b, c, 2), Residual(c), Residual(c))
        self.stride32 = nn.Sequential(ConvNormRelu(c, d, 2), Residual(d), Residual(d))
        self.side8, self.side16, self.side32 = (nn.Conv2d(n, pyramid, 1) for n in (b, c, d))
        self.merge16, self.merge8 = ConvNormRelu(pyramid, pyramid), ConvNormRelu(pyramid, pyramid)
        self.head = nn.Sequential(ConvNormRelu(pyramid, pyramid), nn.Conv2d(pyramid, classes + 4, 1))
        self.classes = classes
        last = self.head[-1]
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        nn.init.constant_(last.bias[:classes], -4.6)  # objects are rare: start at a score of 0.01
        nn.init.zeros_(last.bias[classes:])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.after_stem(self.stem(x))

    def after_stem(self, four: Tensor) -> tuple[Tensor, Tensor]:
        """The same from the stem's output (B, widths[0], S/4, S/4), which networks with one stem may share."""
        eight = self.stride8(four)
        sixteen = self.stride16(eight)
        thirtytwo = self.stride32(sixteen)
        p = self.side16(sixteen) + F.interpolate(self.side32(thirtytwo), scale_factor=2.0)
        p = self.side8(eight) + F.interpolate(self.merge16(p), scale_factor=2.0)
        out = self.head(self.merge8(p))
        heat, raw = out[:, : self.classes], out[:, self.classes :]
        return heat, 16.0 * raw.clamp(max=4.0).exp()


def decode(heat: Tensor, distances: Tensor, top: int = TOP) -> tuple[Tensor, Tensor, Tensor]:
    """Peaks of the heat maps as objects, best first.

    heat (B, C, h, w) logits, distances (B, 4, h, w) -> scores (B, K), classes (B, K), boxes (B, K, 4) as x1 y1 x2 y2
    in input pixels. A peak is a cell that is the largest of its 3×3 neighbourhood in its own class. A small map, with
    fewer than `top` cells over all classes, gives as many as it has.
    """
    batch, classes, height, width = heat.shape
    scores = heat.float().sigmoid()
    scores = scores * (scores == F.max_pool2d(scores, 3, 1, 1))
    best, where = scores.flatten(1).topk(min(top, classes * height * width))  # (B, K), over classes and cells together
    kind, cell = where // (height * width), where % (height * width)
    d = distances.float().flatten(2).gather(2, cell[:, None].expand(-1, 4, -1))  # (B, 4, K)
    x = (cell % width + 0.5) * STRIDE
    y = (cell // width + 0.5) * STRIDE
    boxes = torch.stack((x - d[:, 0], y - d[:, 1], x + d[:, 2], y + d[:, 3]), dim=-1)  # (B, K, 4)
    return best, kind, boxes


def fuse(net: DetectorNet) -> DetectorNet:
    """Fold every batch norm into the convolution before it, in place, for inference. Only rounding changes."""
    for module in list(net.modules()):
        if isinstance(module, nn.Sequential):
            for i in range(len(module) - 1):
                conv, norm = module[i], module[i + 1]
                if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    module[i] = torch.nn.utils.fuse_conv_bn_eval(conv.eval(), norm.eval())
                    module[i + 1] = nn.Identity()
    return net
