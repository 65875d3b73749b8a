"""What travels: this folder, zipped, runs on every node. Standard library only, Python 3.9 and later."""
