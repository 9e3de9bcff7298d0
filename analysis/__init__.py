"""Post-hoc analysis of a results folder with pandas: fronts, tests, figures, report."""
