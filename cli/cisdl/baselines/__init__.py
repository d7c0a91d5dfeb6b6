"""What can be had without a neural network, on the same data: a result means little without it."""
