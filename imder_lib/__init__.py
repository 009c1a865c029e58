"""The IMDer kit: recover a missing modality by score-based diffusion, then predict sentiment."""

from imder_lib import startup  # noqa: F401  must run before PyTorch is imported

# isort: split
from imder_lib.config import ModelConfig, TrainConfig, model_preset, train_preset
from imder_lib.data.load import load_data
from imder_lib.data.missing import availability, patterns
from imder_lib.data.posterior import bayes_prediction, exact_posterior
from imder_lib.errors import UserError
from imder_lib.experiment.checkpoint import load_model
from imder_lib.experiment.evaluation import evaluate
from imder_lib.experiment.training import fit
from imder_lib.model.imder import IMDer
from imder_lib.model.released import load_released
from imder_lib.settings import changed

__all__ = [
    "IMDer",
    "ModelConfig",
    "TrainConfig",
    "UserError",
    "availability",
    "bayes_prediction",
    "changed",
    "evaluate",
    "exact_posterior",
    "fit",
    "load_data",
    "load_model",
    "load_released",
    "model_preset",
    "patterns",
    "train_preset",
]
