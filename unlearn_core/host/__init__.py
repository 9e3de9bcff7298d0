"""What a command needs of the machine that it runs on, whatever the science."""
