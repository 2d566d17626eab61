"""PeakNet Pipeline: Bragg-peak segmentation for serial crystallography, from raw runs to indexing yields."""
