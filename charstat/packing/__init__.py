"""The packed form of a model directory: the same arrays in one file, predicted and coded number by number, decoded when it is loaded."""
