"""The second look: frames that the list indexer left, indexed by all their weak evidence together."""
