"""Timing ours against torch's: verified first, interleaved, with a spread on every figure."""
