"""Live bars: each taken once, through the pipeline's checks and formulas, into the store."""
