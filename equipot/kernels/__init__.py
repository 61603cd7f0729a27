"""The innermost loops of the package: machine code on CPUs, plain JAX on every other platform.

Each kernel is a primitive of JAX (see ``primitive``) over index arrays and arrays of numbers; no kernel takes a ``Graph``.

    rows          y[i] = sum_k x[index[i, k]]
    convolution   messages of the neighbours, multilinear in radial weights, harmonics and features
    polynomial    polynomials of an atom's features, channel by channel

Derivatives of a kernel, of any order, are sums of calls of that kernel, so that forces, stresses, force constants and training
run through one code. The implementation is chosen when XLA lowers for a platform: for CPUs the machine code that ``xla_ffi``
compiles; for other platforms, and where no machine code can be compiled, a plain formulation in JAX, which is also the
reference of the tests.
"""
