"""Several processes that train one net: who is among them, what they add up, what they share.

Above torch.distributed, below the recipe and the training on folders, which share it.
"""
