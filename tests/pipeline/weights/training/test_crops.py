"""Crops are drawn from many images at once: each where it should be, in all eight turns, never with a gap."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from difffusr.pipeline.weights.training.crops import TURNS, Crops, whole_corners

SHAPES = [(9, 12), (7, 7), (20, 8), (8, 31)]


def numbered(shapes: list[tuple[int, int]]) -> list[torch.Tensor]:
    """Images whose pixels say where they are: (image, row, column)."""
    found = []
    for i, (h, w) in enumerate(shapes):
        rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        found.append(torch.stack([torch.full((h, w), i), rows, columns], -1).float())
    return found


def crops(size: int, valid: list | None = None, each: int = 1) -> Crops:
    valid = valid or [None] * len(SHAPES)
    return Crops.of(numbered(SHAPES), valid, np.array([0.1, 0.2, 0.3, 0.4]), size, each)


@pytest.mark.parametrize("size", [1, 2, 5, 6, 7])
def test_every_crop_is_a_whole_square_of_one_image_turned_in_one_of_eight_ways(size: int):
    shares = torch.rand(400, 3, generator=torch.Generator().manual_seed(size), dtype=torch.float64)
    found, image = crops(size).draw(shares)
    seen = set()
    for crop, number in zip(found[:, 0], image.tolist(), strict=True):
        assert (crop[0] == number).all()
        rows, columns = crop[1], crop[2]
        square = numbered(SHAPES)[number][int(rows.min()) :, int(columns.min()) :][:size, :size].permute(2, 0, 1)
        turned = [f(square.rot90(k, (1, 2))) for k in range(4) for f in (lambda x: x, lambda x: x.flip(2))]
        ways = [i for i, other in enumerate(turned) if torch.equal(other, crop)]
        assert ways
        seen.add(ways[0])
    assert len(seen) == (TURNS if size > 1 else 1)


@pytest.mark.parametrize("size", [1, 3, 6])
def test_images_and_corners_come_as_often_as_stated(size: int):
    shares = torch.rand(20_000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found, image = crops(size).draw(shares)
    counts = torch.bincount(image, minlength=4) / len(image)
    torch.testing.assert_close(counts, torch.tensor([0.1, 0.2, 0.3, 0.4]), atol=0.02, rtol=0)
    one = found[image == 2, 0, 1:].amin((2, 3))  # the upper left corner of each crop of the third image
    rows, columns = (n - size + 1 for n in SHAPES[2])
    times = torch.bincount((one[:, 0] * columns + one[:, 1]).long(), minlength=rows * columns)
    assert len(times) == rows * columns
    assert times.min() > 0.5 * times.float().mean()
    assert times.max() < 1.7 * times.float().mean()


@pytest.mark.parametrize("each", [1, 2])
@pytest.mark.parametrize("size", [2, 4, 6])
def test_no_crop_has_a_gap_and_images_full_of_gaps_are_drawn_less(size: int, each: int):
    valid = [np.ones(shape, dtype=bool) for shape in SHAPES]
    valid[2][10, :] = False
    valid[3][:, :] = False
    shares = torch.rand(5000, 2 + each, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found, image = crops(size, valid, each).draw(shares)
    assert (image != 3).all()
    rows = found[image == 2][:, :, 1]
    assert (rows != 10).all()
    places = [np.array([0.1, 0.2, 0.3])[i] * (q**each) for i, q in enumerate((1, 1, (20 - 2 * size + 1) / (21 - size)))]
    expected = torch.tensor([share / sum(places) for share in places])
    torch.testing.assert_close(torch.bincount(image)[:3] / 5000, expected.float(), atol=0.03, rtol=0)


def test_nothing_but_gaps_is_an_error():
    with pytest.raises(ValueError, match="no crop of 3 × 3"):
        crops(3, [np.zeros(shape, dtype=bool) for shape in SHAPES])


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("seed", range(3))
def test_corners_without_gaps_are_those_found_by_looking(size: int, seed: int):
    valid = np.random.default_rng(seed).random((9, 11)) > 0.1
    rows, columns = (n - size + 1 for n in valid.shape)
    looked = [r * columns + c for r in range(rows) for c in range(columns) if valid[r : r + size, c : c + size].all()]
    assert whole_corners(valid, size).tolist() == looked
