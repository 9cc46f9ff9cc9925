"""How long a trajectory remembers."""

from __future__ import annotations

import numpy as np

_WINDOW = 5.0  # correlation times to integrate over; what follows is noise


def correlation_time(values: np.ndarray, every: float = 1.0) -> float:
    """Integral over the absolute autocorrelation function, in the unit of ``every``.

    The window of the integral is that of Sokal, five correlation times. Oscillations count with
    their envelope: a structure of the same phase a period later is no new one.

    Args:
        values: at equal times, shape=(n_times, n_variables); variables are correlated each with
            itself, and the sum over them is normalised.
        every: the time between two of them.

    Reference:
        Sokal, in Functional Integration, NATO ASI Series 361, 131 (1997), section 3.
    """
    n = len(values)
    deviations = values - values.mean(axis=0)
    spectrum = np.abs(np.fft.rfft(deviations, 2 * n, axis=0)) ** 2
    correlation = np.fft.irfft(spectrum.sum(axis=1))[:n] / np.arange(n, 0, -1)
    if not correlation[0] > 0:
        return 0.0
    times = np.abs(correlation / correlation[0]).cumsum() - 0.5
    inside = np.arange(n) >= _WINDOW * times
    return float(times[inside.argmax() if inside.any() else -1] * every)
