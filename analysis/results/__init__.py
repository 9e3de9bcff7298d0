"""What the tables say: comparisons with retraining, verdicts, agreement of metrics, the plane."""
