"""What is measured of the project itself: speed, overhead, scaling. Each file is a command."""
