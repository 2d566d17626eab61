"""A page to look at frames, served to a browser: images, peaks, lattices, masks, tuning by looking.

``scene`` holds what is known of one run, ``openers`` makes scenes from what a user names, ``tune`` finds peaks anew,
``drawn_mask`` turns drawn shapes into a mask file, ``server`` hands all of it to the page in ``page``.
"""
