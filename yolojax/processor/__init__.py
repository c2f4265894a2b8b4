"""What only a processor (CPU) needs: lowerings of convolutions that XLA runs faster, and the memory that XLA keeps."""
