"""What people read: the page, its interactive figures, and the text for the terminal."""
