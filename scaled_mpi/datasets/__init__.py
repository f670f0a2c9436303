"""Trajectories that others made, brought into the store: one member a file format."""

from scaled_mpi.datasets.hdf5_files import Hdf5Files
from scaled_mpi.datasets.netcdf import NetcdfFiles
from scaled_mpi.datasets.npz import NpzFiles
from scaled_mpi.datasets.well import WellFiles

MEMBERS = {
    "hdf5": Hdf5Files,
    "netcdf": NetcdfFiles,
    "npz": NpzFiles,
    "well": WellFiles,
}
