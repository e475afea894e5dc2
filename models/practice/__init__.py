"""Practice sets: linear models, an SVM, an MLP and a CNN learn to read MNIST and Fashion-MNIST in minutes."""
