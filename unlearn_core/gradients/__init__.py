"""Gradients beyond those of a training step: per row, squared, and with respect to inputs."""
