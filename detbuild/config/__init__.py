"""The experiment config: parses YAML 1.2 into one frozen value, with positions in every error."""
