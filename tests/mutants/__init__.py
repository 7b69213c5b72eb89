"""Deliberately wrong kernels: the tests' own test. Each must be rejected by the assertions that the tests use."""
