"""How the panels of a stack and their masks lie in a file."""

from peaknet_pipeline.types import Geometry, MaskLayer


def dim_layout_of(geometry: Geometry) -> tuple[str, ...]:
    """Return the roles of the data set's dimensions: declared, or frame first, then fixed indices, ss, fs."""
    if geometry.dim_layout:
        return geometry.dim_layout
    return ("%", *("n" for _ in geometry.panels[0].stack_index), "ss", "fs")


def mask_layers(geometry: Geometry) -> tuple[MaskLayer, ...]:
    """Return every mask that the geometry names, the first one included."""
    if geometry.mask_path is None:
        return geometry.more_masks
    bits = geometry.mask_good_bits, geometry.mask_bad_bits
    return (MaskLayer(geometry.mask_path, geometry.mask_file, *bits), *geometry.more_masks)
