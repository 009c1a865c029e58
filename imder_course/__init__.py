"""The course's own code: figures, interactive panels and small worked examples. Nothing in imder_lib imports it."""
