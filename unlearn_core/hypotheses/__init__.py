"""The quantities behind the reference paper's two hypotheses on why unlearning fails."""
