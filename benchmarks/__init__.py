"""Speed, scaling and accuracy, measured: ``python -m benchmarks --help``. README.md beside this file says how and what."""
