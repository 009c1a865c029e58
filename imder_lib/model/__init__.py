"""Models: IMDer, the recoverers, BERT, and the parameter names of the released code."""
