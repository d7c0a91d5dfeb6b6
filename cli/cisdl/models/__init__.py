"""The models of the course, each in one short file, and the registry that names them."""
