import torch
from torch import nn

from imder_lib.nets.joint_net import JointNet


def test_embedding_sees_time_averages():
    net = JointNet(2, 4, channels=16, blocks=1)
    for weight in (net.out.weight, net.blocks[0].out.weight):
        nn.init.normal_(weight)  # zero in a new net
    nn.init.zeros_(net.inp.weight)  # only the embedding is left
    g = torch.Generator().manual_seed(0)
    x, known, level = torch.randn(3, 2, 4, 6, generator=g), torch.zeros(3, 2, 4, 6), torch.zeros(3)
    available = torch.tensor([[True, False]]).expand(3, 2)
    out = net(x, level, known, available)
    torch.testing.assert_close(net(x.flip(3), level, known, available), out)
    missing, given = torch.tensor([0.0, 1.0])[:, None, None], torch.tensor([1.0, 0.0])[:, None, None]
    for changed, condition in ((x + missing, known), (x, known + given)):
        assert (net(changed, level, condition, available) - out).abs().amax(dim=(1, 2, 3)).min() > 1e-3
    torch.testing.assert_close(net(x + given, level, known, available), out)  # not read where available
