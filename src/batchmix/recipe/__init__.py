"""CIFAR-10 with mixup, from real images to a tested net, written with the public names as a user would."""
