"""The machine room: who owns which cells, and how values travel between ranks.

- `comm`: communicators; the one importer of mpi4py
- `blocks`: the arithmetic of the split, without MPI
- `halo`: the exchange of cells; `particles`: the exchange of particles
- `streams`, `keys`: random numbers keyed by place, and the numbers of their purposes
- `ordered`: sums whose bits do not depend on the ranks
- `store`, `trajectory`, `checkpoint`, `hdf5`: fields in files
- `petsc`, `nonlinear`: DMDA and solvers

Nothing is imported here: a program that only computes the split must not start MPI.
"""
