"""`benchmarks report`: one HTML page, and plots, of result files. Nothing is measured here."""
