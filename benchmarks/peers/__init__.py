"""Other programs with the same potential on the same structures: each in a process of its own, asked in turn."""
