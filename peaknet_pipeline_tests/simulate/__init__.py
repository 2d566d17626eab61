"""Claims about the simulator."""
