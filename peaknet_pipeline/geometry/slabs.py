"""How the panels of a stack and their masks lie in a file."""

from dataclasses import replace

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


def with_masks(geometry: Geometry, layers: tuple[MaskLayer, ...]) -> Geometry:
    """Return the geometry with these masks, in order; the inverse of :func:`mask_layers`."""
    first = layers[0] if layers else MaskLayer("")
    return replace(
        geometry,
        mask_path=first.path or None,
        mask_file=first.file,
        mask_good_bits=first.good_bits,
        mask_bad_bits=first.bad_bits,
        more_masks=layers[1:],
    )
