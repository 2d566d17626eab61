"""The compression of the frames that are written, which works whatever plugins the system offers HDF5."""

from collections.abc import Mapping
from typing import Any

import hdf5plugin

from peaknet_pipeline.errors import RunError

_BITSHUFFLE = "bshuf"


def frame_compression() -> Mapping[str, Any]:
    """Return how frames are compressed, bitshuffle with LZ4, as options of h5py's ``create_dataset``.

    Raises
    ------
    RunError
        Another build of the filter is in use and cannot be replaced.

    """
    use_own_filter()
    compression: Mapping[str, Any] = hdf5plugin.Bitshuffle(cname="lz4")
    return compression


def use_own_filter() -> None:
    """Have HDF5 compress with hdf5plugin's bitshuffle instead of one that it met in ``HDF5_PLUGIN_PATH``.

    hdf5plugin leaves a filter out that HDF5 finds in that folder, which CrystFEL needs set. Such a plugin belongs to another
    HDF5 library and fails when h5py writes with it.

    Raises
    ------
    RunError
        It cannot be replaced, since an open file uses it.

    """
    in_use = hdf5plugin.get_config().registered_filters.get(_BITSHUFFLE, "")
    if in_use.startswith(hdf5plugin.PLUGIN_PATH):
        return
    if not hdf5plugin.register(_BITSHUFFLE, force=True):
        raise RunError(
            "HDF5 uses a bitshuffle filter of another library, with which nothing can be written",
            where="HDF5_PLUGIN_PATH",
            remedy="Start the program with HDF5_PLUGIN_PATH unset.",
        )


use_own_filter()  # at once: a filter that an open file uses cannot be replaced
