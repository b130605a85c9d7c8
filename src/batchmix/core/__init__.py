"""Pure functions and values: tensors and a generator in, tensors out."""
