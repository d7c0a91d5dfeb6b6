"""cisdl: train, check and benchmark course models on hand-written neural-network kernels."""

__version__ = "0.1.0"
