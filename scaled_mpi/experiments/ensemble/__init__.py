"""Ensembles of particle systems: their densities, POD, MVAR and forecasts."""
