"""The tables of a report, as files and as text."""
