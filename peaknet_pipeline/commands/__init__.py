"""One file per command of ``peaknet``: options and output only; the work is in ``stages``, ``bench`` and ``orchestration``."""
