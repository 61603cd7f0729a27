"""The innermost loops, as machine code where the processor is known and as plain JAX elsewhere.

Everything here is multilinear or polynomial, and its derivatives of any order are again of the same kind: each primitive knows
how to differentiate, transpose and batch itself, so that forces, stresses, force constants and training run through the same
code. The plain formulation beside each is what its machine code is tested against.
"""
