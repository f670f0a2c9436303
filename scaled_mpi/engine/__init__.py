"""Runs any kind of experiment and knows none: stages, artefacts, plan, page, jobs on a cluster."""
