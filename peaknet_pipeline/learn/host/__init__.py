"""Networks of cells on a CPU: from raw panels to logits in compiled code."""
