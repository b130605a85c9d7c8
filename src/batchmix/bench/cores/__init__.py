"""The recipe on a CPU beside airbench94's schedule in the same loop: times of steps and their parts."""
