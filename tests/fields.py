"""Random fields whose covariance is known."""

import numpy as np


def gaussian_fields(covariance, count, seed=0):
    """Exact samples (count, *shape) of a stationary field."""
    noise = np.random.default_rng(seed).standard_normal((count, *covariance.shape))
    root = np.sqrt(np.maximum(np.fft.fftn(covariance).real, 0.0))
    return np.fft.ifft2(root * np.fft.fft2(noise)).real
