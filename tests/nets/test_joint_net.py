import pytest
import torch
import torch.nn.functional as F
from torch import nn

from imder_lib.nets.joint_net import Block, Norm, TimeConv


@pytest.mark.parametrize("dilation", [1, 2, 4, 8])
@pytest.mark.parametrize("T", [1, 2, 7, 16])
def test_time_conv_and_norm_are_those_of_pytorch(T: int, dilation: int):
    g, conv, norm = torch.Generator().manual_seed(0), TimeConv(6, 6, 3, dilation=dilation), Norm(1, 6)
    for p in norm.parameters():
        nn.init.normal_(p, generator=g)
    h = torch.randn(4, T, 6, generator=g, requires_grad=True)
    whole = F.conv1d(h.transpose(1, 2), conv.weight, conv.bias, padding=dilation, dilation=dilation)
    torch.testing.assert_close(conv(h), whole.transpose(1, 2))
    slopes = [torch.autograd.grad(y.square().sum(), (h, conv.weight)) for y in (conv(h), whole)]
    torch.testing.assert_close(*slopes)
    grouped = F.group_norm(h.transpose(1, 2), 1, norm.weight, norm.bias, norm.eps)
    torch.testing.assert_close(norm(h), grouped.transpose(1, 2))


def test_blocks_see_the_time_average():
    block, g, seen = Block(16, 16, 1), torch.Generator().manual_seed(0), []
    nn.init.normal_(block.out.weight)  # zero in a new net
    block.average.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    h, embedding = torch.randn(3, 24, 16, generator=g), torch.randn(3, 16, generator=g)
    before = block(h, embedding)
    torch.testing.assert_close(seen[0], h.mean(dim=1))
    nn.init.constant_(block.average[-1].bias, 2.0)
    assert (block(h, embedding) - before).abs().mean() > 1e-2
