"""What is measured on held-out images: accuracy, realised cost, routes."""
