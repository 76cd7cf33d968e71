"""Where bars come from: each source returns them in one schema."""
