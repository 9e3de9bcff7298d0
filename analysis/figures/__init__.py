"""One figure per file: `curve` computes what is drawn, `draw` draws it."""
