"""A timm model on a folder of one's own images, streamed from the disk, on any number of processes."""
