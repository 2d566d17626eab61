"""Files to frames: opening, validating, calibrating and masking raw runs; peak lists written back as CXI."""
