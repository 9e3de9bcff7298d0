"""The report of a scan: one setting against what it changes."""
