"""Other programs on the same work: each in a process of its own, asked in turn. Workers run in environments without equipot:
what they import of this package needs the standard library, numpy and ASE only."""
