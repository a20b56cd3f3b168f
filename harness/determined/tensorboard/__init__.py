"""Where trials of every era import their TensorBoard writers from."""
