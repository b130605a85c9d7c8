"""The race for a mean accuracy on CIFAR-10: our presets and airbench in turn, on one device."""
