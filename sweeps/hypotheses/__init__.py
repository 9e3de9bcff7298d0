"""The reference paper's two hypotheses, tested: `python -P -m sweeps.hypotheses`."""
