"""Blocks that are recomputed save memory and change nothing."""

import copy

import pytest
import torch
from torch import nn

from nets.errors import UserError
from tests.engine_helpers import batch, network
from utils.training.recompute import find_blocks, recompute_backbone


@pytest.mark.parametrize(
    ("family", "backbone"), [("unet", "test_resnet"), ("segformer", "b0"), ("unet", "convnext_atto")]
)
def test_recomputed_blocks_have_the_same_gradients_and_statistics(family, backbone):
    kept = network(family, backbone).train()
    again = copy.deepcopy(kept)
    assert recompute_backbone(again) >= 2

    def step(model: nn.Module) -> tuple[int, torch.Tensor]:
        sizes = []

        def note(tensor):
            sizes.append(tensor.numel())
            return tensor

        torch.manual_seed(7)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss = model(batch(2, 64)[0])["logits"].square().mean()
        loss.backward()
        return sum(sizes), loss.detach()

    (memory, loss), (less, same_loss) = step(kept), step(again)
    assert less < 0.8 * memory and torch.equal(loss, same_loss)
    torch.testing.assert_close(dict(again.named_buffers()), dict(kept.named_buffers()))
    for one, other in zip(kept.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    assert again.state_dict().keys() == kept.state_dict().keys()


def test_recomputed_blocks_can_be_compiled():
    kept = network().train()
    again = copy.deepcopy(kept)
    recompute_backbone(again)
    again.compile(backend="eager")  # the tracing, without the compiler
    for model in (kept, again):
        model(batch(2, 64)[0])["logits"].square().mean().backward()
    for one, other in zip(kept.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_a_backbone_without_blocks_is_named():
    with pytest.raises(UserError, match="--GRAD_CHECKPOINT is given; this backbone has no blocks"):
        recompute_backbone(network(backbone="vgg11"))
    assert not find_blocks(nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU()))
