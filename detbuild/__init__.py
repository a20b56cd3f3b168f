"""From a model directory to trained trials in containers on one Docker host."""
