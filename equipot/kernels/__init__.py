"""The innermost loops of the package: machine code on CPUs, plain JAX on every other platform.

Each kernel is a primitive of JAX (``primitive``) over index arrays and arrays of numbers; no kernel knows a ``Graph``.

    rows          y[i] = sum_k x[index[i, k]]
    convolution   messages of the neighbours, multilinear in radial weights, harmonics and features
    polynomial    polynomials of an atom's features, channel by channel

Derivatives of each kernel, of any order, are sums of the same kernel, so that forces, stresses, force constants and training
run through the same code. Which implementation is used is decided where XLA lowers for a platform: on a CPU the machine code
that ``xla_ffi`` compiles, elsewhere, and where no machine code can be made, the plain formulation in JAX, which is also the
reference of the tests.
"""
