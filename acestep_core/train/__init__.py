"""Train an adapter on songs: the dataset, its features, the training loop and the files of the result."""
