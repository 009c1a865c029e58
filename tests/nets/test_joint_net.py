import torch
from torch import nn

from imder_lib.nets.joint_net import Block


def test_blocks_see_the_time_average():
    block, g, seen = Block(16, 16, 1), torch.Generator().manual_seed(0), []
    nn.init.normal_(block.out.weight)  # zero in a new net
    block.average.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    h, embedding = torch.randn(3, 16, 24, generator=g), torch.randn(3, 16, generator=g)
    before = block(h, embedding)
    torch.testing.assert_close(seen[0], h.mean(dim=2))
    nn.init.constant_(block.average[-1].bias, 2.0)
    assert (block(h, embedding) - before).abs().mean() > 1e-2
