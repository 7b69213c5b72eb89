"""What every Triton kernel takes on every GPU, found by compiling without one: docs/resources."""
