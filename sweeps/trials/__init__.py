"""One trial, and what trials share inside one process."""
