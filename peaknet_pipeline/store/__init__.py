"""Where things lie, what an experiment says, and what every output was made from."""
