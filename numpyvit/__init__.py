"""numpyvit: the Vision Transformer, from reverse-mode autograd to attention maps, in plain NumPy."""
