"""The reference paper's two hypotheses, tested: `python -m sweeps.hypotheses`."""
