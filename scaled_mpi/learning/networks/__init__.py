"""Networks: torch modules, each imported only where it is trained or run."""
