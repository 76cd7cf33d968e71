"""Every answer on record: first in a file that survives a kill, then in the database."""
