"""The report of a test of the paper's two hypotheses."""
