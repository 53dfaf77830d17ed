"""Boundary IoU by hand, and against erosion step by step."""

import torch
from torch import nn

from utils.evaluation.boundary import BoundaryIoU, boundary_width


def test_boundary_iou_by_hand():
    assert boundary_width(480, 640) == 16 and boundary_width(5, 5) == 1
    truth = torch.zeros(1, 12, 12, dtype=torch.int64)
    truth[:, 3:9, 3:9] = 1
    shifted = torch.zeros_like(truth)
    shifted[:, 3:9, 4:10] = 1
    same, moved = BoundaryIoU(3), BoundaryIoU(3)
    same.update(truth, truth)
    assert same.compute() == (1.0, (1.0, 1.0, None))
    moved.update(shifted, truth)
    # the outlines of class 1 are two frames of 20 pixels; only their top and bottom lines share 2 x 5
    assert (moved.hits[1], moved.union[1]) == (10, 30)
    ignored = truth.clone()
    ignored[:, :, 9:] = -1
    edge = BoundaryIoU(2)
    edge.update(truth, ignored)
    assert edge.union[1] == 16  # the right line is no outline any more, but for its two corners


def test_boundary_iou_against_erosion_step_by_step():
    torch.manual_seed(0)
    truth, found = torch.rand(2, 70, 90).mul(2.2).long(), torch.rand(2, 70, 90).mul(2.2).long()
    truth[:, :40, :50] = found[:, 5:45, 3:53] = 1
    result = BoundaryIoU(3)
    result.update(found, truth)
    steps = boundary_width(70, 90)
    for index in range(3):
        outlines = []
        for masks in (truth, found):
            inside = (masks == index).float()
            for _ in range(steps):  # what a 3 x 3 neighbourhood leaves, step by step, zero beyond the image
                padded = nn.functional.pad(inside, (1, 1, 1, 1))
                inside = -nn.functional.max_pool2d(-padded[:, None], 3, 1)[:, 0]
            outlines.append((masks == index) & (inside == 0))
        assert result.hits[index] == (outlines[0] & outlines[1]).sum()
        assert result.union[index] == (outlines[0] | outlines[1]).sum()
