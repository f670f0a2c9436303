"""Patterns larger than the boxes that their denoisers were trained on."""
