import pytest
import torch
from torch import nn

from imder_lib.nets.joint_net import Block, time_conv, time_norm


@pytest.mark.parametrize("dilation", [1, 2, 4, 8])
@pytest.mark.parametrize("T", [1, 2, 7, 16])
def test_convolution_and_norm_are_those_of_pytorch(T: int, dilation: int):
    g, norm = torch.Generator().manual_seed(0), nn.GroupNorm(1, 6)
    conv = nn.Conv1d(6, 6, 3, padding=dilation, dilation=dilation)
    for p in norm.parameters():
        nn.init.normal_(p, generator=g)
    h = torch.randn(4, T, 6, generator=g, requires_grad=True)
    for products, module in ((time_conv, conv), (time_norm, norm)):
        own, whole = products(module, h), module(h.transpose(1, 2)).transpose(1, 2)
        torch.testing.assert_close(own, whole)
        slopes = [torch.autograd.grad(y.square().sum(), (h, *module.parameters())) for y in (own, whole)]
        torch.testing.assert_close(*slopes, rtol=1e-4, atol=1e-4)


def test_blocks_see_the_time_average():
    block, g, seen = Block(16, 16, 1), torch.Generator().manual_seed(0), []
    nn.init.normal_(block.out.weight)  # zero in a new net
    block.average.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    h, embedding = torch.randn(3, 24, 16, generator=g), torch.randn(3, 16, generator=g)
    before = block(h, embedding)
    torch.testing.assert_close(seen[0], h.mean(dim=1))
    nn.init.constant_(block.average[-1].bias, 2.0)
    assert (block(h, embedding) - before).abs().mean() > 1e-2
