"""Large grids of poison-train-unlearn-evaluate trials: specification, search, records, tracking."""
