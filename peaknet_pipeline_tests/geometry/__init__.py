"""Claims about geometry."""
