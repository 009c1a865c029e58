"""Models: recoverers, IMDer itself and the dialect of the released code."""
