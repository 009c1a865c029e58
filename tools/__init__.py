"""For those who maintain the course: execute it, check its form, build its book, draw its animations."""
