"""Forces of point charges on a mesh by equipot, LAMMPS and torch-pme, and the share of charges and D3 in a step of dynamics."""
