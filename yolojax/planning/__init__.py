"""What a run would need and cost on a TPU slice or a GPU, by their compilers, on a machine that has neither."""
