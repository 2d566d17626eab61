"""Claims about reading and writing runs."""
