"""Networks: nn.Modules that know no data set, no device and no SDE."""
