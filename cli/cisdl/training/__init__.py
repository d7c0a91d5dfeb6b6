"""The training loop, its configuration and the folder that a run leaves behind."""
