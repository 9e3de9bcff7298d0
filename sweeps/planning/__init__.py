"""What there is to do, in which order, and at which price."""
