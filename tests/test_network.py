"""Peaks become objects; folding the norms changes nothing."""

import torch

from rov.vision.network import STRIDE, DetectorNet, decode, fuse


def test_shapes_for_any_batch() -> None:
    net = DetectorNet(5).eval()
    for batch in (1, 3):
        heat, distances = net(torch.zeros(batch, 3, 96, 96))
        assert heat.shape == (batch, 5, 12, 12) and distances.shape == (batch, 4, 12, 12)
        assert (distances > 0).all()


def test_decode_by_hand() -> None:
    heat = torch.full((1, 2, 6, 6), -9.0)
    heat[0, 1, 2, 3] = 2.0  # sigmoid(2) = 0.8808
    heat[0, 1, 2, 4] = 1.0  # its neighbour in the same class is no peak
    heat[0, 0, 2, 4] = 0.0  # in another class it is: 0.5
    distances = torch.zeros(1, 4, 6, 6)
    distances[0, :, 2, 3] = torch.tensor([10.0, 5.0, 20.0, 15.0])
    scores, kinds, boxes = decode(heat, distances, top=2)
    assert torch.allclose(scores, torch.tensor([[0.8808, 0.5]]), atol=1e-4)
    assert kinds.tolist() == [[1, 0]]
    x, y = 3.5 * STRIDE, 2.5 * STRIDE  # the centre of cell (3, 2): 28, 20
    assert boxes[0, 0].tolist() == [x - 10, y - 5, x + 20, y + 15]


def test_a_school_of_fish_fits_into_the_list() -> None:
    heat = torch.full((1, 1, 48, 48), -9.0)
    heat[0, 0, ::4, ::5] = 3.0  # 120 fish
    scores, _, _ = decode(heat, torch.ones(1, 4, 48, 48))
    assert (scores > 0.5).sum() == 120 and scores.shape[1] >= 128
    assert decode(heat[..., :4, :4], torch.ones(1, 4, 4, 4))[0].shape == (1, 16), "a small map gives all it has"


def test_rows_of_a_batch_do_not_mix() -> None:
    torch.manual_seed(0)
    heat, distances = torch.randn(3, 4, 8, 8), torch.rand(3, 4, 8, 8)
    together = decode(heat, distances)
    for i in range(3):
        alone = decode(heat[i : i + 1], distances[i : i + 1])
        assert all(torch.equal(a[0], b[i]) for a, b in zip(alone, together, strict=True))


def test_fuse_keeps_the_function() -> None:
    torch.manual_seed(1)
    net = DetectorNet(3).train()
    for _ in range(3):
        net(torch.randn(2, 3, 64, 64) * 2 + 1)  # running statistics that are not 0 and 1
    net.eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        before = net(x)
        after = fuse(net)(x)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in net.modules())
    for a, b in zip(before, after, strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-4)
