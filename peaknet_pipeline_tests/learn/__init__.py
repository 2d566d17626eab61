"""The network learns toy problems of known truth; checkpoints, registry and training meet bad input."""
