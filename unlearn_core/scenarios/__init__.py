"""Poison, train, unlearn and measure: what one scenario consists of."""
