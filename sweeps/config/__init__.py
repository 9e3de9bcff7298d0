"""What a sweep is: its settings, read, changed, checked and identified."""
