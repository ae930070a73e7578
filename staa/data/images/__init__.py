"""Images: CIFAR, and class folders of files."""
