"""TensorBoard writers for trials of all Determined versions."""
