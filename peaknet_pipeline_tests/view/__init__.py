"""The page to look at frames."""
