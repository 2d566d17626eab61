"""Tell file formats apart."""

import h5py

from peaknet_pipeline.hdf5.files import LinkedFiles
from peaknet_pipeline.runs.nexus_layout import find_detector


def file_format(files: LinkedFiles) -> str:
    """Return ``nxmx``, ``cxi`` or ``hdf5``, judged by the groups in the file and its name, or ``zarr``."""
    if files.format is not None:
        return files.format
    if files.has_link("/entry/data/data_000001") or find_detector(files) is not None:
        return "nxmx"
    if isinstance(files.find("/entry_1"), h5py.Group) or files.path.suffix == ".cxi":
        return "cxi"
    return "hdf5"
