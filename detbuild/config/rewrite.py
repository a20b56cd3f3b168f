"""Rewrites configs: completes one for submission, or reduces one to a test of one batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from detbuild.config.hyperparameters import Const
from detbuild.config.randomstate import RandomState
from detbuild.config.sampling import sample
from detbuild.config.searcher import Single
from detbuild.config.training import MAX_SEED
from determined._run_info import Length

if TYPE_CHECKING:
    from detbuild.config.experiment import ExperimentConfig

_WORDS: Final = (
    ("brave", "calm", "eager", "fond", "gentle", "keen", "lively", "mild", "quick", "sunny", "vivid", "wise"),
    (
        "amber",
        "azure",
        "coral",
        "golden",
        "green",
        "ivory",
        "jade",
        "olive",
        "pearl",
        "ruby",
        "silver",
        "teal",
    ),
    (
        "badger",
        "crane",
        "dolphin",
        "falcon",
        "gecko",
        "heron",
        "ibex",
        "lynx",
        "otter",
        "robin",
        "seal",
        "yak",
    ),
)


def completed(config: ExperimentConfig, *, seed: int) -> ExperimentConfig:
    """Set the seed and the name, if the config has none.

    Args:
        config: the config as submitted.
        seed: the default seed; Determined uses the time of submission in seconds.
    """
    chosen = config.reproducibility.experiment_seed
    kept = seed % (MAX_SEED + 1) if chosen is None else chosen
    name = config.name or config.description or _pet_name(seed)
    reproducibility = config.reproducibility.model_copy(update={"experiment_seed": kept})
    return config.model_copy(update={"name": name, "reproducibility": reproducibility})


def test_mode(config: ExperimentConfig) -> ExperimentConfig:
    """Reduce to one batch and validation of one sample, without restarts or kept checkpoints."""
    one = Length("batches", 1)
    seed = config.reproducibility.experiment_seed or 0
    hparams = sample(config.hyperparameters, seed)
    keep_none = {"save_experiment_best": 0, "save_trial_best": 0, "save_trial_latest": 0}
    return config.model_copy(
        update={
            "description": f"[test-mode] {config.description or ''}".strip(),
            "scheduling_unit": 1,
            "min_validation_period": one,
            "searcher": _single(config, one),
            "hyperparameters": {
                name: Const.model_validate({"val": value}) for name, value in hparams.items()
            },
            "checkpoint_storage": config.checkpoint_storage.model_copy(update=keep_none),
            "max_restarts": 0,
        }
    )


def _single(config: ExperimentConfig, length: Length) -> Single:
    searcher = config.searcher
    return Single(
        metric=searcher.metric,
        smaller_is_better=searcher.smaller_is_better,
        source_trial_id=searcher.source_trial_id,
        source_checkpoint_uuid=searcher.source_checkpoint_uuid,
        max_length=length,
    )


def _pet_name(seed: int) -> str:
    random = RandomState(seed)
    return f"Experiment ({'-'.join(words[random.randint(0, len(words))] for words in _WORDS)})"
