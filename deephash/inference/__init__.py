"""From features and images to binary codes, without a training loop."""
