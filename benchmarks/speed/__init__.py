"""Speed of kernels, loading, training steps and start-up."""
