"""The machine room: who owns which cells, and how values travel between ranks.

`comm` is the one importer of mpi4py, `blocks` the arithmetic of the split (no MPI), `halo` the
exchange, `streams` random numbers keyed by place, `particles` migration, `store` fields in files,
`petsc` DMDA and solvers. Nothing is imported here: a program that only computes who owns what must
not start MPI.
"""
