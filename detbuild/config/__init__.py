"""The experiment config: parses YAML 1.2 into one frozen value, with positions in every error."""

from detbuild.config.experiment import Entrypoint, ExperimentConfig
from detbuild.config.hyperparameters import Draw, draws, sample, trial_identity
from detbuild.config.parse import LOCAL_DEFAULTS, config_from_mapping, load_config, parse_config
from detbuild.config.rewrite import completed, test_mode, warnings_for
from detbuild.config.yaml import ConfigErrors

__all__ = [
    "LOCAL_DEFAULTS",
    "ConfigErrors",
    "Draw",
    "Entrypoint",
    "ExperimentConfig",
    "completed",
    "config_from_mapping",
    "draws",
    "load_config",
    "parse_config",
    "sample",
    "test_mode",
    "trial_identity",
    "warnings_for",
]
