"""Classical crystallography on pixels: peakfinder8 and its kin, profile fits, peak matching."""
