"""Data sets: readers, splits and batches; everything lives in memory as tensors."""
