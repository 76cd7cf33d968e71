"""The service's processes: a supervisor, one writer, and readers that answer."""
