"""Kept for one release: `load` and the main job's settings, now in `scaled_mpi.experiments`."""

from scaled_mpi.experiments import load
from scaled_mpi.experiments.forecast.settings import ForecastExperiment as Experiment

__all__ = ["Experiment", "load"]
