"""Raw runs: files to frames, masks, statistics, bad pixels, CXI peak lists."""
