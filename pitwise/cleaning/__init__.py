"""Which bars can be trusted, and what happened to the companies."""
