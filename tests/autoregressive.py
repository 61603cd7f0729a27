"""Series whose spectra, averages and integrals are known in closed form."""

import numpy as np
from scipy.signal import lfilter


def autoregressive(rng, coefficients, samples, components=1):
    """Draw x_t = sum_k a_k x_(t-k) + normal noise, stationary, (samples, components); its spectrum at zero frequency, per
    interval, is 1 / (1 - sum a)^2."""
    noise = rng.normal(size=(samples + 500, components))
    return lfilter([1.0], [1.0, *(-a for a in coefficients)], noise, axis=0)[500:]


def langevin(rng, frames, atoms, step_over_relaxation, relaxation_fs=100.0):
    """Draw free Langevin particles exactly: velocities (Å/fs) of unit variance, and positions (Å), (frames, atoms, 3).

    <v(0) v(t)> = exp(-t / tau), D = tau; the joint law of velocity and displacement over a step is Gaussian.
    """
    tau, x = relaxation_fs, step_over_relaxation
    decay = np.exp(-x)
    of_v = 1 - decay**2
    of_x = tau**2 * (2 * x - 3 + 4 * decay - decay**2)
    both = tau * (1 - decay) ** 2
    factor = np.linalg.cholesky(np.array([[of_v, both], [both, of_x]]))
    noise = rng.normal(size=(frames, atoms, 3, 2)) @ factor.T
    v = lfilter([1.0], [1.0, -decay], noise[..., 0], axis=0, zi=decay * rng.normal(size=(1, atoms, 3)))[0]
    before = np.concatenate([v[:1], v[:-1]])
    moves = tau * (1 - decay) * before + noise[..., 1]
    moves[0] = 0
    return v, np.cumsum(moves, axis=0)
