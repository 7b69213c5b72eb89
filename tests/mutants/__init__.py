"""Deliberately wrong kernels: the tests' own test. The tests' assertions must reject each of them."""
