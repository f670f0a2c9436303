"""Forecasts of a large domain by a surrogate learned on small ones: the main job."""
