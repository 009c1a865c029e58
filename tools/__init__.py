"""Maintenance of the course: execute it, check its form, build the static book, draw the animations."""
