"""What the files of a sweep hold. Standard library only, so that anything can read them."""
