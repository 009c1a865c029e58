"""CUDA graphs: the kernels of a small net, recorded once for each shape of its arguments and replayed by one launch.

gpu.py measures what they gain and compares their gradients with those of the net itself. They are not in the library:
no card has run them yet.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

EAGER = 2  # calls before a graph is recorded, which costs several calls


class Graphed:
    """A method of a module whose forward and backward passes are replayed as CUDA graphs.

    A graph has room for one result and one gradient: calls with gradient use none while a backward pass is pending, or
    while a parameter has a gradient, to which another may be added.
    """

    def __init__(self, module: nn.Module, call: Callable[..., Any]) -> None:
        self.module, self.call = module, call
        self.seen: Counter[tuple] = Counter()
        self.graphs: dict[tuple, Callable[..., Any]] = {}
        self.pending = False

    def __call__(self, *args: Any) -> Any:
        leaves, spec = pytree.tree_flatten(args)
        parameters, grad = list(self.module.parameters()), torch.is_grad_enabled()
        if grad and (self.pending or any(p.grad is not None for p in parameters)):
            return self.call(*args)
        key = (str(spec), *((x.shape, x.dtype, x.requires_grad) for x in leaves), grad, self.module.training,
               torch.is_autocast_enabled("cuda"), torch.backends.cuda.matmul.fp32_precision,
               *((p.data_ptr(), p.requires_grad) for p in parameters))  # fmt: skip
        self.seen[key] += 1
        if self.seen[key] <= EAGER:
            return self.call(*args)
        if key not in self.graphs:
            self.graphs[key] = record(lambda _, *own: self.call(*own), parameters, args)
        out = pytree.tree_map(Tensor.clone, self.graphs[key](parameters, *args))
        if grad and (differentiable := [x for x in pytree.tree_leaves(out) if x.requires_grad]):
            self.pending = True
            differentiable[0].register_hook(self._done)
        return out

    def _done(self, gradient: Tensor) -> None:
        self.pending = False


def record(call: Callable[..., Any], parameters: list[nn.Parameter], args: tuple) -> Callable[..., Any]:
    """``call(parameters, *args)`` as a graphed callable; random numbers are drawn as if nothing had been recorded."""
    own = pytree.tree_map(lambda x: x.detach().clone().requires_grad_(x.requires_grad), args)
    kind, on = torch.get_autocast_dtype("cuda"), torch.is_autocast_enabled("cuda")
    with torch.random.fork_rng(), torch.autocast("cuda", kind, on, cache_enabled=False):
        return torch.cuda.make_graphed_callables(call, (parameters, *own), allow_unused_input=True)
