"""Layouts of map keys and values, shared by the kernel side and the model."""
