"""What a model is made of, seen by running it: its forward pass, its blocks, its frozen part."""
