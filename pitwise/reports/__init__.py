"""Pages about the data that open offline."""
