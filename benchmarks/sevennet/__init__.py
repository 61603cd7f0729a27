"""SevenNet-0 by equipot and by sevenn, from the same checkpoint on the same crystals."""
