"""A mixer in a framework's training loop: one file a framework, named after it, and no arithmetic.

Each file's docstring answers three questions: where is the batch intercepted, how is the loss reached, how is
evaluation left untouched? Importing one without its framework names the command that installs it.
"""
