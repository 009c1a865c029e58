"""Linear estimate of missing latents: ridge regression on a window of the available ones."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WINDOW = 9  # input steps for the estimate of one step
PENALTIES = tuple(10.0**k for k in range(-5, 2))  # multiplied by the number of frames; inputs have variance 1
HELD_OUT = 5  # every fifth sample is held out to select the penalty


def windows(x: Tensor) -> Tensor:
    """The WINDOW steps around each step of x (N, C, T), zero-padded: (N, T, WINDOW * C), ordered by offset."""
    half = WINDOW // 2
    return F.pad(x, (half, half)).unfold(2, WINDOW, 1).permute(0, 2, 3, 1).flatten(2)


class LinearMean(nn.Module):
    """Linear estimate of E[missing | available] of standardised latents: one ridge regression per pattern."""

    def __init__(self, modalities: int, dim: int) -> None:
        super().__init__()
        self.M, self.D = modalities, dim
        # first axis: pattern code, in which bit i means that modality i is available
        self.register_buffer("weight", torch.zeros(2**modalities, WINDOW * modalities * dim, modalities * dim))

    def forward(self, latents: Tensor, available: Tensor) -> Tensor:
        """Estimates (B, M, D, T) from latents (B, M, D, T), of which only available (B, M) ones are read."""
        seen = windows((latents * available[:, :, None, None]).flatten(1, 2))  # (B, T, W M D)
        code = (available * 2 ** torch.arange(self.M, device=available.device)).sum(dim=1)
        out = seen.new_zeros(*seen.shape[:2], self.M * self.D)
        for c in code.unique():
            rows = (code == c).nonzero()[:, 0]
            out[rows] = (seen[rows] @ self.weight[c]).to(out)  # under autocast it is bfloat16
        return out.transpose(1, 2).unflatten(1, (self.M, self.D))

    @torch.no_grad()
    def fit(self, latents: Tensor) -> None:
        """Fit the regressions of all incomplete patterns to complete latents (N, M, D, T), in float64 on the CPU."""
        latents, held = latents.cpu(), torch.arange(len(latents)) % HELD_OUT == 0
        kept, out = (self._moments(latents[rows]) for rows in (~held, held))
        owner = torch.arange(self.M * self.D) // self.D  # modality of each channel of a frame
        centre = torch.arange(self.M * self.D) + WINDOW // 2 * self.M * self.D
        for code in range(1, 2**self.M - 1):
            available = (code >> owner & 1).bool()
            inputs, target = available.repeat(WINDOW).nonzero()[:, 0], centre[~available]
            penalties = [p * latents.shape[-1] * max(1, int((~held).sum())) for p in PENALTIES]
            fits = [self._ridge(kept, inputs, target, p) for p in penalties]
            gram, cross = out[inputs][:, inputs], out[inputs][:, target]
            errors = [float(((gram @ W) * W).sum() - 2 * (cross * W).sum()) for W in fits]
            best = penalties[errors.index(min(errors))]
            W = self._ridge(kept + out, inputs, target, best)
            self.weight[code, inputs[:, None], (~available).nonzero()[:, 0]] = W.to(self.weight)

    @staticmethod
    def _moments(latents: Tensor) -> Tensor:
        """Second moments of all windows, (W M D, W M D)."""
        size = WINDOW * latents.shape[1] * latents.shape[2]
        out = torch.zeros(size, size, dtype=torch.float64)
        for x in latents.split(256):  # samples; all at once would need much memory
            w = windows(x.flatten(1, 2)).flatten(0, 1).double()
            out += w.T @ w
        return out

    @staticmethod
    def _ridge(moments: Tensor, inputs: Tensor, target: Tensor, penalty: float) -> Tensor:
        gram = moments[inputs][:, inputs]
        return torch.linalg.solve(gram + penalty * torch.eye(len(inputs)).to(gram), moments[inputs][:, target])
